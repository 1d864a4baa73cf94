#include "sched/schedule.h"

#include "core/base/alloc.h"
#include "core/base/cron.h"
#include "core/base/json.h"

#include <stdlib.h>

struct entry {
    struct rs_cron cron;
    struct rs_zone *zone;
    char *cron_text, *zone_text;
    int min_replicas;
    int64_t duration; /* 0: no end */
};

struct rs_schedule {
    struct entry *entries;
    size_t n;
};

void rs_schedule_free(struct rs_schedule *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        rs_zone_free(s->entries[i].zone);
        free(s->entries[i].cron_text);
        free(s->entries[i].zone_text);
    }
    free(s->entries);
    free(s);
}

static int fill(struct entry *e, const json_t *from, struct rs_error *err)
{
    double duration = rs_json_num(from, "duration_s", 0);

    e->cron_text = rs_strdup(rs_json_str(from, "cron", ""));
    e->zone_text = rs_strdup(rs_json_str(from, "timezone", "UTC"));
    e->min_replicas = (int)rs_json_int(from, "min_replicas", 0);
    e->duration = duration > 0 && duration < 1 ? 1 : (int64_t)duration;
    if (rs_cron_parse(&e->cron, e->cron_text, err) < 0)
        return -1;
    return rs_zone_load(&e->zone, e->zone_text, err);
}

int rs_schedule_new(struct rs_schedule **ret, const json_t *list, struct rs_error *err)
{
    rs_auto(rs_schedule_freep) struct rs_schedule *s = rs_alloc(sizeof(*s));

    s->n = json_array_size(list);
    s->entries = rs_alloc((s->n + 1) * sizeof(*s->entries));
    for (size_t i = 0; i < s->n; i++)
        if (fill(&s->entries[i], json_array_get(list, i), err) < 0)
            return rs_error_wrap(err, "schedule[%zu]", i);
    *ret = rs_steal(s);
    return 0;
}

struct rs_schedule_now rs_schedule_at(const struct rs_schedule *s, int64_t t)
{
    struct rs_schedule_now now = {.entry = -1, .until = INT64_MAX};

    for (size_t i = 0; s && i < s->n; i++) {
        const struct entry *e = &s->entries[i];
        int64_t begun = 0, next = 0;
        bool began = rs_cron_last(&e->cron, e->zone, t, &begun);
        bool ended = began && e->duration && t - begun >= e->duration;

        if (rs_cron_next(&e->cron, e->zone, t, &next) && next < now.until)
            now.until = next;
        if (!began || ended)
            continue;
        if (e->duration && begun + e->duration < now.until)
            now.until = begun + e->duration;
        if (now.entry >= 0 && begun < now.since)
            continue;
        now.entry = (int)i;
        now.since = begun;
        now.min_replicas = e->min_replicas;
        now.cron = e->cron_text;
        now.zone = e->zone_text;
    }
    return now;
}
