/* number.h: numbers as text that reads back to the same bits.
 *
 * Threads: pure functions.
 */
#ifndef BP_EXPORT_NUMBER_H
#define BP_EXPORT_NUMBER_H

#include "json_text.h"

#include <stddef.h>

#define BP_F32_TEXT (BP_NUMBER_TEXT + 2) /* room for any printed float32, NUL included */

/* Prints the shortest of 6 to 9 significant digits that reads back to the same float32, as JSON writes numbers.
 * JSON has no word for what is not finite: those become the strings "NaN", "Infinity" and "-Infinity", with quotes.
 * Returns the number of characters. */
size_t bp_f32_print(char ret[BP_F32_TEXT], float value);

/* The float32 behind 4 little-endian bytes at any address. */
float bp_f32_load(const unsigned char *bytes);

#endif
