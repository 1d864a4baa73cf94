#include "core/events/minutes.h"

#include "core/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rs_minutes_fini(struct rs_minutes *m)
{
    free(m->rows);
    *m = (struct rs_minutes){0};
}

static int64_t minute_of(double wall_s)
{
    return wall_s > 0 && wall_s < 1e15 ? (int64_t)(wall_s / 60) : 0;
}

static unsigned row_of(struct rs_minutes *m, const char *name)
{
    size_t cap = m->cap;

    for (unsigned i = 0; i < m->count; i++)
        if (strncmp(m->rows[i].name, name, RS_MINUTES_NAME - 1) == 0)
            return i;
    if (m->count + 1 >= RS_MINUTES_NAMES && strcmp(name, "other") != 0)
        return row_of(m, "other");
    m->rows = rs_grow(m->rows, &cap, m->count + 1, sizeof(*m->rows));
    m->cap = (unsigned)cap;
    memset(&m->rows[m->count], 0, sizeof(*m->rows));
    snprintf(m->rows[m->count].name, RS_MINUTES_NAME, "%s", name);
    return m->count++;
}

/* What is older than the window makes room. A clock that goes back finds the newest minute. */
static void advance(struct rs_minutes *m, int64_t to)
{
    int64_t from = to - m->now >= RS_MINUTES ? to - RS_MINUTES + 1 : m->now + 1;

    for (int64_t at = from; at <= to; at++)
        for (unsigned i = 0; i < m->count; i++)
            m->rows[i].n[at % RS_MINUTES] = 0;
    m->now = to > m->now ? to : m->now;
}

void rs_minutes_add(struct rs_minutes *m, const char *name, uint64_t n, double wall_s)
{
    unsigned row;

    if (n == 0)
        return;
    advance(m, minute_of(wall_s));
    row = row_of(m, name); /* before the sum: it may move the rows */
    m->rows[row].n[m->now % RS_MINUTES] += n;
}

json_t *rs_minutes_json(const struct rs_minutes *m, double wall_s)
{
    int64_t now = minute_of(wall_s) > m->now ? minute_of(wall_s) : m->now;
    json_t *all = json_object();

    for (unsigned i = 0; i < m->count; i++) {
        json_t *list = json_array();
        uint64_t total = 0;

        for (int64_t at = now - RS_MINUTES + 1; at <= now; at++) {
            bool known = at >= 0 && at <= m->now && at > m->now - RS_MINUTES;
            uint64_t n = known ? m->rows[i].n[at % RS_MINUTES] : 0;

            total += n;
            json_array_append_new(list, json_integer((json_int_t)n));
        }
        if (total)
            json_object_set_new(
                all, m->rows[i].name,
                json_pack("{s:I, s:O}", "total", (json_int_t)total, "minutes", list));
        json_decref(list);
    }
    return all;
}
