#include "cmd/simulate_events.h"

#include "core/base/alloc.h"

#include <stdlib.h>

static bool before(const struct rs_sim_event *a, const struct rs_sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void rs_sim_events_fini(struct rs_sim_events *q)
{
    free(q->heap);
    *q = (struct rs_sim_events){0};
}

void rs_sim_post(struct rs_sim_events *q, struct rs_sim_event e)
{
    size_t i = q->n++;

    q->heap = rs_grow(q->heap, &q->cap, q->n, sizeof(*q->heap));
    e.seq = ++q->seq;
    for (; i > 0 && before(&e, &q->heap[(i - 1) / 2]); i = (i - 1) / 2)
        q->heap[i] = q->heap[(i - 1) / 2];
    q->heap[i] = e;
}

bool rs_sim_take(struct rs_sim_events *q, int64_t until, struct rs_sim_event *ret)
{
    struct rs_sim_event last;
    size_t i = 0;

    if (q->n == 0 || q->heap[0].at > until)
        return false;
    *ret = q->heap[0];
    last = q->heap[--q->n];
    for (size_t child; (child = 2 * i + 1) < q->n; i = child) {
        if (child + 1 < q->n && before(&q->heap[child + 1], &q->heap[child]))
            child++;
        if (!before(&q->heap[child], &last))
            break;
        q->heap[i] = q->heap[child];
    }
    if (q->n > 0)
        q->heap[i] = last;
    return true;
}

int64_t rs_sim_next_at(const struct rs_sim_events *q)
{
    return q->n > 0 ? q->heap[0].at : INT64_MAX;
}
