/* formats.c: the formats that weights are handed out in. */
#include "export/weights.h"

#include <string.h>

static const struct bp_export_format formats[] = {
    {"safetensors", "safetensors", "application/octet-stream", bp_export_safetensors},
    {"npz", "npz", "application/zip", bp_export_npz},
    {"json", "json", "application/json", bp_export_json},
};

const struct bp_export_format *bp_export_find(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, name))
            return &formats[i];
    return NULL;
}

json_t *bp_export_names(void)
{
    json_t *names = json_array();
    for (size_t i = 0; names && i < sizeof formats / sizeof *formats; i++)
        json_array_append_new(names, json_string(formats[i].name));
    return names;
}
