/* json_text.h: JSON as people want to read it: numbers as short as they can be without losing a bit.
 *
 * Jansson prints every real with a fixed number of digits: 17 are exact, but show 0.1 as 0.10000000000000001. Here a
 * double is printed with the fewest of 15 to 17 digits that read back to the same bits.
 *
 * Threads: pure functions of their arguments.
 */
#ifndef BP_SERVER_JSON_TEXT_H
#define BP_SERVER_JSON_TEXT_H

#include <jansson.h>

#define BP_NUMBER_TEXT 32 /* bytes that hold any number as text */

/* Compact text of a value, malloc'd, or NULL (no memory, or json NULL). Members keep their order. */
char *bp_json_text(const json_t *json);

/* The shortest text of a double that reads back the same; "NaN", "Infinity", "-Infinity". Returns ret. */
char *bp_number_text(double value, char ret[BP_NUMBER_TEXT]);

/* The same of a float32: 6 to 9 digits. */
char *bp_float_text(float value, char ret[BP_NUMBER_TEXT]);

/* A number; the strings "NaN", "Infinity", "-Infinity" for what JSON has no number for. New reference or NULL. */
json_t *bp_json_number(double value);

/* The same of a float32: the double of its shortest decimal text (at most 9 digits), which rounds back to it. */
json_t *bp_json_float(float value);

#endif
