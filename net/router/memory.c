#include "net/router/memory.h"

#include "core/base/error.h"
#include "core/base/machine.h"

#include <stdio.h>

static const char *const kinds[RS_HELD_KINDS] = {
    [RS_HELD_WAITING] = "waiting", [RS_HELD_REPLAY] = "replay", [RS_HELD_ANSWER] = "answer"};

void rs_memory_init(struct rs_memory *m, uint64_t limit, struct rs_metrics *metrics)
{
    static const struct rs_family_conf bound = {
        .name = "rserve_buffered_limit_bytes",
        .help = "Bytes held for requests under way beyond which new ones are refused with 503.",
        .kind = RS_GAUGE};

    atomic_init(&m->told, 0);
    m->limit = limit && limit < INT64_MAX ? (int64_t)limit : (int64_t)(rs_machine_memory() / 4);
    rs_series_set(rs_family_series(rs_metrics_family(metrics, &bound), NULL), (double)m->limit);
}

void rs_lane_memory_init(struct rs_lane_memory *m, struct rs_memory *all, unsigned lane,
                         struct rs_metrics *metrics)
{
    static const struct rs_family_conf held = {
        .name = "rserve_buffered_bytes",
        .help =
            "Bytes held for requests under way: waiting (bodies of requests that were not sent), "
            "replay (bodies that are kept to be sent once more), answer (not taken by clients).",
        .kind = RS_GAUGE,
        .labels = {"kind", "lane"}};
    struct rs_family *family = rs_metrics_family(metrics, &held);
    char name[16];

    m->all = all;
    snprintf(name, sizeof(name), "%u", lane);
    for (size_t i = 0; i < RS_HELD_KINDS; i++)
        m->shown[i] = rs_family_series(family, (const char *const[]){kinds[i], name});
}

void rs_memory_add(struct rs_lane_memory *m, enum rs_held what, int64_t n)
{
    int64_t news;

    m->held[what] += n;
    m->sum += n;
    rs_series_set(m->shown[what], (double)m->held[what]);
    news = m->sum - m->told;
    if (news >= RS_MEMORY_STEP || news <= -RS_MEMORY_STEP) {
        m->told = m->sum;
        atomic_fetch_add_explicit(&m->all->told, news, memory_order_relaxed);
    }
}
