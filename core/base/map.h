/* Hash map from text to pointer, in insertion order when walked.
 *
 * Ownership: keys are copied; values are the caller's. {0} is a valid empty map.
 * Walk: for (size_t i = 0; i < rs_map_slots(m); i++) if ((v = rs_map_at(m, i, &key))) ...;
 *       removing the current entry while walking is fine, adding is not.
 */
#pragma once

#include <stddef.h>

struct rs_map_entry {
    char *key; /* NULL: removed */
    void *value;
    size_t hash;
};

struct rs_map {
    struct rs_map_entry *entries;
    size_t used, cap; /* entries in use (removed ones included), room */
    size_t count;     /* live entries */
    size_t *index;    /* open addressing: entry number + 1, 0 empty */
    size_t index_size;
};

void rs_map_fini(struct rs_map *m);
void *rs_map_get(const struct rs_map *m, const char *key); /* NULL: none */
/* Puts or replaces; returns the value that was there, or NULL. `value` is not NULL. */
void *rs_map_put(struct rs_map *m, const char *key, void *value);
void *rs_map_remove(struct rs_map *m, const char *key); /* the value, or NULL */
static inline size_t rs_map_count(const struct rs_map *m)
{
    return m->count;
}
static inline size_t rs_map_slots(const struct rs_map *m)
{
    return m->used;
}
/* Entry number `i`, or NULL for a hole. `key` may be NULL. */
void *rs_map_at(const struct rs_map *m, size_t i, const char **key);
