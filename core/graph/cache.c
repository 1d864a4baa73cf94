#include "core/graph/cache.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <stdlib.h>

void rs_cache_init(struct rs_cache *c, uint64_t max_bytes)
{
    *c = (struct rs_cache){.max_bytes = max_bytes, .size = 64};
    c->buckets = rs_alloc(c->size * sizeof(struct rs_cache_entry *));
    rs_list_init(&c->used);
}

static struct rs_cache_entry **find(const struct rs_cache *c, struct rs_hash_sum key)
{
    struct rs_cache_entry **at = &c->buckets[key.h[0] & (c->size - 1)];

    while (*at && !rs_hash_same((*at)->key, key))
        at = &(*at)->next;
    return at;
}

static uint64_t cost(const struct rs_cache_entry *e)
{
    return sizeof(*e) + (e->value ? rs_value_weight(e->value) : 0);
}

/* Its value goes; the entry stays for who works on it. */
static void forget(struct rs_cache *c, struct rs_cache_entry *e)
{
    if (!e->value)
        return;
    c->bytes -= cost(e);
    rs_list_remove(&e->link);
    rs_value_unref(e->value);
    e->value = NULL;
}

static void take_out(struct rs_cache *c, struct rs_cache_entry *e)
{
    struct rs_cache_entry **at = find(c, e->key);

    assert(*at == e && rs_list_empty(&e->waiting));
    forget(c, e);
    *at = e->next;
    c->count--;
    free(e);
}

void rs_cache_fini(struct rs_cache *c)
{
    for (size_t i = 0; i < c->size; i++) {
        while (c->buckets && c->buckets[i])
            take_out(c, c->buckets[i]);
    }
    free(c->buckets);
    *c = (struct rs_cache){0};
}

static void grow(struct rs_cache *c)
{
    struct rs_cache_entry **old = c->buckets;
    size_t n = c->size;

    c->size *= 2;
    c->buckets = rs_alloc(c->size * sizeof(struct rs_cache_entry *));
    for (size_t i = 0; i < n; i++) {
        struct rs_cache_entry *next;

        for (struct rs_cache_entry *e = old[i]; e; e = next) {
            struct rs_cache_entry **to = &c->buckets[e->key.h[0] & (c->size - 1)];

            next = e->next;
            e->next = *to;
            *to = e;
        }
    }
    free(old);
}

struct rs_cache_entry *rs_cache_at(struct rs_cache *c, struct rs_hash_sum key, int64_t now)
{
    struct rs_cache_entry **at = find(c, key), *e = *at;

    if (e && e->value && e->until <= now)
        forget(c, e);
    if (e && e->value)
        rs_list_push_back(&c->used, &e->link);
    if (e)
        return e;
    if (c->count >= c->size) {
        grow(c);
        at = find(c, key);
    }
    e = rs_alloc(sizeof(*e));
    e->key = key;
    rs_list_init(&e->link);
    rs_list_init(&e->waiting);
    *at = e;
    c->count++;
    return e;
}

void rs_cache_keep(struct rs_cache *c, struct rs_cache_entry *e, struct rs_value *value,
                   int64_t until)
{
    assert(!e->value && rs_list_empty(&e->waiting));
    e->leader = NULL;
    if (rs_value_weight(value) + sizeof(*e) > c->max_bytes / 4) {
        take_out(c, e);
        return;
    }
    e->value = rs_value_ref(value);
    e->until = until;
    c->bytes += cost(e);
    rs_list_push_back(&c->used, &e->link);
    while (c->bytes > c->max_bytes)
        take_out(c, rs_container_of(c->used.next, struct rs_cache_entry, link));
}

void rs_cache_drop(struct rs_cache *c, struct rs_cache_entry *e)
{
    e->leader = NULL;
    take_out(c, e);
}
