#include "sched/restart.h"

#define FIRST (100 * RS_MS)
#define MOST (10 * RS_SEC)

static int64_t pause_of(unsigned step)
{
    if (step == 0)
        return 0;
    return step > 7 ? MOST : FIRST << (step - 1);
}

int64_t rs_restarts_failed(struct rs_restarts *r, int64_t now)
{
    return now + pause_of(r->failed++);
}

void rs_restarts_ready(struct rs_restarts *r)
{
    r->failed = 0;
}

int64_t rs_restarts_ended(struct rs_restarts *r, int64_t lived, unsigned replicas, int64_t now)
{
    const int64_t gap = RS_SEC / RS_RESTART_PER_S;
    int64_t burst = gap * (replicas > RS_RESTART_BURST ? replicas : RS_RESTART_BURST);
    int64_t at;

    r->quick = lived < RS_RESTART_QUICK ? r->quick + 1 : 0;
    if (r->paced < now - burst)
        r->paced = now - burst;
    r->paced += gap;
    at = r->paced > now ? r->paced : now;
    if (r->quick > RS_RESTART_FREE) {
        int64_t until = now + pause_of(r->quick - RS_RESTART_FREE);

        if (until > at)
            at = until;
    }
    return at;
}
