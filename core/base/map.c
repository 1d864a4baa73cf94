#include "core/base/map.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t hash_of(const char *key)
{
    size_t h = 1469598103934665603u; /* FNV-1a */

    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 1099511628211u;
    return h;
}

void rs_map_fini(struct rs_map *m)
{
    for (size_t i = 0; i < m->used; i++)
        free(m->entries[i].key);
    free(m->entries);
    free(m->index);
    *m = (struct rs_map){0};
}

/* The index cell that holds `key`, or the empty one where it would go. */
static size_t *find(const struct rs_map *m, const char *key, size_t hash)
{
    size_t mask = m->index_size - 1;

    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        size_t *cell = &m->index[at];
        const struct rs_map_entry *e;

        if (!*cell)
            return cell;
        e = &m->entries[*cell - 1];
        if (e->key && e->hash == hash && strcmp(e->key, key) == 0)
            return cell;
    }
}

/* Drops the holes and sizes the index for at least twice the entries. */
static void rebuild(struct rs_map *m)
{
    size_t live = 0, size = 16;

    for (size_t i = 0; i < m->used; i++) {
        if (m->entries[i].key)
            m->entries[live++] = m->entries[i];
    }
    m->used = live;
    while (size < (live + 1) * 4)
        size *= 2;
    free(m->index);
    m->index = rs_alloc(size * sizeof(*m->index));
    m->index_size = size;
    for (size_t i = 0; i < live; i++)
        *find(m, m->entries[i].key, m->entries[i].hash) = i + 1;
}

void *rs_map_get(const struct rs_map *m, const char *key)
{
    const size_t *cell;

    if (!m->count)
        return NULL;
    cell = find(m, key, hash_of(key));
    return *cell ? m->entries[*cell - 1].value : NULL;
}

void *rs_map_put(struct rs_map *m, const char *key, void *value)
{
    size_t hash = hash_of(key);
    size_t *cell;
    void *old;

    assert(value);
    if ((m->used + 1) * 2 > m->index_size)
        rebuild(m);
    cell = find(m, key, hash);
    if (*cell) {
        old = m->entries[*cell - 1].value;
        m->entries[*cell - 1].value = value;
        return old;
    }
    m->entries = rs_grow(m->entries, &m->cap, m->used + 1, sizeof(*m->entries));
    m->entries[m->used++] = (struct rs_map_entry){rs_strdup(key), value, hash};
    m->count++;
    *cell = m->used;
    return NULL;
}

void *rs_map_remove(struct rs_map *m, const char *key)
{
    struct rs_map_entry *e;
    const size_t *cell;

    if (!m->count)
        return NULL;
    cell = find(m, key, hash_of(key));
    if (!*cell)
        return NULL;
    e = &m->entries[*cell - 1]; /* the index keeps pointing at the hole: probing goes on past it */
    free(e->key);
    e->key = NULL;
    m->count--;
    return e->value;
}

void *rs_map_at(const struct rs_map *m, size_t i, const char **key)
{
    const struct rs_map_entry *e = &m->entries[i];

    if (!e->key)
        return NULL;
    if (key)
        *key = e->key;
    return e->value;
}
