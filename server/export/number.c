/* number.c: numbers as text that reads back to the same bits (see number.h). */
#include "export/number.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t bp_f32_print(char ret[BP_F32_TEXT], float value)
{
    if (isnan(value))
        return (size_t)snprintf(ret, BP_F32_TEXT, "\"NaN\"");
    if (isinf(value))
        return (size_t)snprintf(ret, BP_F32_TEXT, "\"%sInfinity\"", value < 0 ? "-" : "");
    int length = 0;
    for (int digits = 6; digits <= 9; digits++) { /* 9 always do */
        length = snprintf(ret, BP_F32_TEXT, "%.*g", digits, (double)value);
        if (strtof(ret, NULL) == value)
            break;
    }
    return (size_t)length;
}

float bp_f32_load(const unsigned char *bytes)
{
    uint32_t bits =
        (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
