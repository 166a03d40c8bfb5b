# Two spirals that wind around each other, with a little noise: a classic that no straight line can divide.
#
#   awk -f scripts/spirals.awk > spirals.csv             1000 rows: x, y, arm
#   awk -v rows=4000 -f scripts/spirals.awk > large.csv
#
# The noise comes from a generator of our own (Lehmer, 48271 mod 2^31 - 1), so that every awk writes the same file.
function random() {
    state = (state * 48271) % 2147483647
    return state / 2147483647
}
BEGIN {
    if (rows == "")
        rows = 1000
    state = 20260301
    print "x,y,arm"
    for (i = 0; i < rows; i++) {
        half = int(i / 2) / (rows / 2)
        angle = 0.5 + half * 3 * 3.14159265358979
        radius = 0.1 + half * 0.9
        turn = i % 2 ? 3.14159265358979 : 0
        printf "%.5f,%.5f,%s\n", radius * cos(angle + turn) + (random() - 0.5) * 0.05, \
            radius * sin(angle + turn) + (random() - 0.5) * 0.05, i % 2 ? "blue" : "red"
    }
}
