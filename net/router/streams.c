#include "net/router/streams.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <stdlib.h>

static size_t slot_of(const struct rs_streams *m, uint64_t stream)
{
    return (size_t)((stream * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (m->size - 1);
}

void rs_streams_fini(struct rs_streams *m)
{
    free(m->at);
    *m = (struct rs_streams){0};
}

static void insert(struct rs_streams *m, uint64_t stream, void *value)
{
    size_t i = slot_of(m, stream);

    while (m->at[i].stream)
        i = (i + 1) & (m->size - 1);
    m->at[i] = (struct rs_stream_entry){stream, value};
}

void rs_streams_put(struct rs_streams *m, uint64_t stream, void *value)
{
    assert(stream && value);
    if (2 * (m->count + 1) > m->size) {
        struct rs_streams bigger = {.size = m->size ? 2 * m->size : 16};

        bigger.at = rs_alloc(bigger.size * sizeof(*bigger.at));
        for (size_t i = 0; i < m->size; i++) {
            if (m->at[i].stream)
                insert(&bigger, m->at[i].stream, m->at[i].value);
        }
        bigger.count = m->count;
        free(m->at);
        *m = bigger;
    }
    insert(m, stream, value);
    m->count++;
}

static struct rs_stream_entry *find(const struct rs_streams *m, uint64_t stream)
{
    if (!m->count || !stream)
        return NULL;
    for (size_t i = slot_of(m, stream); m->at[i].stream; i = (i + 1) & (m->size - 1)) {
        if (m->at[i].stream == stream)
            return &m->at[i];
    }
    return NULL;
}

void *rs_streams_get(const struct rs_streams *m, uint64_t stream)
{
    const struct rs_stream_entry *e = find(m, stream);

    return e ? e->value : NULL;
}

void *rs_streams_take(struct rs_streams *m, uint64_t stream)
{
    struct rs_stream_entry *e = find(m, stream);
    void *value;
    size_t hole, i;

    if (!e)
        return NULL;
    value = e->value;
    /* Close the gap, so that searches need no tombstones. */
    hole = (size_t)(e - m->at);
    for (i = (hole + 1) & (m->size - 1); m->at[i].stream; i = (i + 1) & (m->size - 1)) {
        size_t home = slot_of(m, m->at[i].stream);

        if (((i - home) & (m->size - 1)) >= ((i - hole) & (m->size - 1))) {
            m->at[hole] = m->at[i];
            hole = i;
        }
    }
    m->at[hole] = (struct rs_stream_entry){0};
    m->count--;
    return value;
}
