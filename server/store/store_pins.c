/* store_pins.c: checkpoints that must not be taken away just now: pinned ones (somebody reads them) and those being written.
 *
 * Both lists are short and live in memory only: after a crash nobody reads, and what was half written is to be swept.
 */
#include "store/store_internal.h"

#include <stdlib.h>
#include <string.h>

static struct bp_pin **find_pin(struct bp_store *store, const char *id)
{
    struct bp_pin **link = &store->pins;
    while (*link && strcmp((*link)->id, id) != 0)
        link = &(*link)->next;
    return link;
}

void bp_store_checkpoint_pin(struct bp_store *store, const char *id)
{
    pthread_mutex_lock(&store->pin_mutex);
    struct bp_pin *pin = *find_pin(store, id);
    if (!pin && (pin = calloc(1, sizeof *pin))) {
        strncpy(pin->id, id, sizeof pin->id - 1);
        pin->next = store->pins;
        store->pins = pin;
    }
    if (pin)
        pin->count++;
    else
        store->unnamed_pins++;
    pthread_mutex_unlock(&store->pin_mutex);
}

void bp_store_checkpoint_unpin(struct bp_store *store, const char *id)
{
    pthread_mutex_lock(&store->pin_mutex);
    struct bp_pin **link = find_pin(store, id), *pin = *link;
    if (pin && --pin->count == 0) {
        *link = pin->next;
        free(pin);
    } else if (!pin && store->unnamed_pins > 0)
        store->unnamed_pins--;
    pthread_mutex_unlock(&store->pin_mutex);
}

bool bp_store_pinned(struct bp_store *store, const char *id)
{
    pthread_mutex_lock(&store->pin_mutex);
    bool pinned = store->unnamed_pins > 0 || *find_pin(store, id);
    pthread_mutex_unlock(&store->pin_mutex);
    return pinned;
}

bool bp_store_uploading(struct bp_store *store, int64_t blob)
{
    bool found = false;
    pthread_mutex_lock(&store->mutex);
    for (const struct bp_upload *u = store->uploads; u && !found; u = u->next)
        found = u->blob == blob;
    pthread_mutex_unlock(&store->mutex);
    return found;
}

void bp_upload_begin(struct bp_store *store, struct bp_upload *upload)
{
    pthread_mutex_lock(&store->mutex);
    upload->next = store->uploads;
    store->uploads = upload;
    pthread_mutex_unlock(&store->mutex);
}

void bp_upload_end(struct bp_store *store, struct bp_upload *upload)
{
    pthread_mutex_lock(&store->mutex);
    struct bp_upload **link = &store->uploads;
    while (*link != upload)
        link = &(*link)->next;
    *link = upload->next;
    pthread_mutex_unlock(&store->mutex);
}
