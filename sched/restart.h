/* When a replica that ended may be followed by another one, as a pure state machine.
 *
 * Starts that fail:  the first is followed at once, the next after 100 ms, twice as long each time, at
 *                    most 10 s. A start that succeeds begins anew.
 * Replicas that ran: are followed at once, whoever killed them and however often: they could run, and
 *                    their requests wait. Only two things slow that down. Those that end within
 *                    RS_RESTART_QUICK of being ready, RS_RESTART_FREE times in a row, are in a circle:
 *                    paused as above. And there are at most RS_RESTART_PER_S in a second in the long run,
 *                    after as many at once as the deployment has replicas, or RS_RESTART_BURST.
 * Units:             monotonic nanoseconds.
 */
#pragma once

#include "core/base/clock.h"

#include <stdint.h>

#define RS_RESTART_QUICK (100 * RS_MS)
enum { RS_RESTART_FREE = 3, RS_RESTART_PER_S = 20, RS_RESTART_BURST = 20 };

struct rs_restarts {
    unsigned failed; /* starts that failed in a row */
    unsigned quick;  /* ends right after being ready, in a row */
    int64_t paced;   /* how far the long run is used up */
};

/* Each returns when the next start may be: `now` is at once. */
int64_t rs_restarts_failed(struct rs_restarts *r, int64_t now);
int64_t rs_restarts_ended(struct rs_restarts *r, int64_t lived, unsigned replicas, int64_t now);
/* One is ready. */
void rs_restarts_ready(struct rs_restarts *r);
