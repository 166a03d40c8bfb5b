/* number.c: numbers as text that reads back to the same bits (see number.h). */
#include "export/number.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

size_t bp_f32_print(char ret[BP_F32_TEXT], float value)
{
    char text[BP_NUMBER_TEXT];
    const char *quote = isfinite(value) ? "" : "\"";
    return (size_t)snprintf(ret, BP_F32_TEXT, "%s%s%s", quote, bp_float_text(value, text), quote);
}

float bp_f32_load(const unsigned char *bytes)
{
    uint32_t bits =
        (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
