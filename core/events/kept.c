#include "core/events/kept.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RESERVE = 1000 };
#define NEW_WAITS RS_SEC
#define REPEAT_WAITS (10 * RS_SEC)

/* --- reading ------------------------------------------------------------------------------------- */

struct found {
    json_t *j;
    unsigned slot;
};

struct reading {
    struct found *all;
    size_t n, cap, left_out;
    uint64_t reserved;
};

static void read_one(const char *name, const char *data, size_t len, void *arg)
{
    struct reading *r = arg;
    json_t *j = NULL;
    char *end;
    unsigned long slot = strtoul(name, &end, 10);

    if (*end || end == name || slot > UINT32_MAX || !(j = json_loadb(data, len, 0, NULL))) {
        r->left_out++;
        return;
    }
    r->all = rs_grow(r->all, &r->cap, r->n + 1, sizeof(*r->all));
    r->all[r->n++] = (struct found){j, (unsigned)slot};
}

static void read_number(const char *name, const char *data, size_t len, void *arg)
{
    struct reading *r = arg;
    char text[24];

    (void)name;
    if (len < sizeof(text)) {
        memcpy(text, data, len);
        text[len] = '\0';
        r->reserved = strtoull(text, NULL, 10);
    }
}

static int by_seq(const void *a, const void *b)
{
    int64_t x = rs_json_int(((const struct found *)a)->j, "seq", 0),
            y = rs_json_int(((const struct found *)b)->j, "seq", 0);

    return (x > y) - (x < y);
}

int rs_events_load(struct rs_events *e, struct rs_records *records, size_t *left_out,
                   struct rs_error *err)
{
    struct reading r = {0};
    int result = rs_records_each(records, RS_EVENTS_KIND, read_one, &r, err);

    if (result == 0)
        result = rs_records_each(records, RS_EVENTS_NUMBER_KIND, read_number, &r, err);
    if (r.n > 0)
        qsort(r.all, r.n, sizeof(*r.all), by_seq);
    for (size_t i = 0; i < r.n; i++) {
        if (result < 0)
            json_decref(r.all[i].j);
        else if (!rs_events_restore(e, r.all[i].j, r.all[i].slot))
            r.left_out++;
    }
    free(r.all);
    if (result < 0)
        return result;
    if (r.reserved > e->next && r.reserved < INT64_MAX / 2)
        e->next = r.reserved;
    e->reserved = e->next;
    if (left_out)
        *left_out = r.left_out;
    return 0;
}

/* --- writing ------------------------------------------------------------------------------------- */

static int put_numbers(uint64_t reserved, struct rs_records *records, struct rs_error *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)reserved);
    return rs_records_put(records, RS_EVENTS_NUMBER_KIND, "next", text, strlen(text), err);
}

static int put_entry(const struct rs_events_entry *x, struct rs_records *records,
                     struct rs_error *err)
{
    rs_auto(rs_freep) char *text = rs_json_dump(x->j);
    char name[16];

    snprintf(name, sizeof(name), "%06u", x->slot);
    return rs_records_put(records, RS_EVENTS_KIND, name, text, strlen(text), err);
}

int rs_events_save(struct rs_events *e, struct rs_records *records, struct rs_error *err)
{
    /* Before half of them are used up: what is given until the next batch is below it as well. */
    bool number = e->next + RESERVE / 2 > e->reserved;
    uint64_t reserved = number ? e->next + RESERVE : e->reserved;

    if (rs_records_begin(records, err) < 0 || (number && put_numbers(reserved, records, err) < 0))
        return -1;
    rs_list_for_each (it, &e->entries) {
        const struct rs_events_entry *x = rs_container_of(it, struct rs_events_entry, in);

        if (x->dirty && put_entry(x, records, err) < 0)
            return -1;
    }
    if (rs_records_commit(records, err) < 0)
        return -1;
    e->reserved = reserved;
    rs_list_for_each (it, &e->entries) {
        struct rs_events_entry *x = rs_container_of(it, struct rs_events_entry, in);

        x->dirty = x->repeat = false;
    }
    e->fresh = e->again = 0;
    return 0;
}

int64_t rs_events_due(const struct rs_events *e, int64_t saved_at)
{
    if (e->fresh > 0)
        return saved_at + NEW_WAITS;
    return e->again > 0 ? saved_at + REPEAT_WAITS : INT64_MAX;
}
