# Writes a C source that holds files as bytes: cmake -DOUT=… -DSYMBOL=… "-DFILES=a;b" -P embed.cmake
# The result defines `const struct bp_embedded SYMBOL[]` (server/embedded.h), one entry a file in the given order, ended
# by a NULL name. Contents are followed by a NUL that is not counted.
set(arrays "")
set(entries "")
set(number 0)
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
  string(APPEND arrays "static const unsigned char file_${number}[] = {\n${bytes}0};\n")
  string(APPEND entries "    {\"${name}\", file_${number}, sizeof file_${number} - 1},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUT} "#include \"embedded.h\"\n${arrays}const struct bp_embedded ${SYMBOL}[] = {\n${entries}    {0, 0, 0}};\n")
