/* Whether a request goes on when whoever worked on it died, as a pure state machine: no sockets, no
 * clock, no threads.
 *
 * Rules:  a request that was not started goes back to the queue, always and free of charge. One that was
 *         started runs once more only if it is safe, nothing of an answer went out, its body is still
 *         here, it was run fewer than RS_RETRY_RUNS times (one that kills whoever takes it must end some
 *         day), and its deployment's budget allows it.
 * Budget: of a deployment, over the last RS_RETRY_WINDOW seconds: as many as `floor`, and `percent` of
 *         the requests that came in. So a storm of deaths never makes more than that much more work.
 * Units:  monotonic nanoseconds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    RS_RETRY_RUNS = 5,     /* of one request, the first included */
    RS_RETRY_WINDOW = 10,  /* seconds */
    RS_RETRY_PERCENT = 20, /* the default */
    RS_RETRY_FLOOR = 10,   /* the least */
};

/* Of one request; {0} before it is sent, and then `safe` as its origin knows. */
struct rs_retry {
    bool safe;     /* to run it twice does no harm */
    bool answered; /* something of an answer went out */
    uint8_t again; /* how often it was run once more */
};

struct rs_retry_budget {
    unsigned floor, percent;
    int64_t next; /* when the next slot begins */
    unsigned at;  /* the slot of this second */
    uint32_t asked[RS_RETRY_WINDOW], spent[RS_RETRY_WINDOW];
    uint64_t asked_sum, spent_sum;
};

enum rs_retry_verdict {
    RS_RETRY_RETURN,   /* it was not started: back to the queue */
    RS_RETRY_AGAIN,    /* it was, and runs once more; that is counted */
    RS_RETRY_ANSWERED, /* from here on: it has failed, and why */
    RS_RETRY_UNSAFE,
    RS_RETRY_CUT, /* its body is not here any more */
    RS_RETRY_OFTEN,
    RS_RETRY_BUDGET,
    RS_RETRY_VERDICTS,
};

void rs_retry_budget_init(struct rs_retry_budget *b, unsigned floor, unsigned percent);
void rs_retry_budget_floor(struct rs_retry_budget *b, unsigned floor);
/* The floor for replicas that take so many requests at a time: one that dies may have had them all, and
 * one request that kills whoever takes it may do so RS_RETRY_RUNS times; the latter up to 100. */
unsigned rs_retry_floor(unsigned max_ongoing);
void rs_retry_budget_turn(struct rs_retry_budget *b, int64_t now);
/* How many may run once more at this moment. */
uint64_t rs_retry_budget_left(struct rs_retry_budget *b, int64_t now);

/* A request came in. */
static inline void rs_retry_earn(struct rs_retry_budget *b, int64_t now)
{
    if (now >= b->next)
        rs_retry_budget_turn(b, now);
    b->asked[b->at]++;
    b->asked_sum++;
}

/* Its replica died. `whole`: all of its body is here. What is decided is also counted. */
enum rs_retry_verdict rs_retry_decide(struct rs_retry *r, struct rs_retry_budget *b, bool started,
                                      bool whole, int64_t now);
/* "return", "again", "answered", ...: for metrics. */
const char *rs_retry_name(enum rs_retry_verdict v);
/* Why it was not run once more, to stand behind "it was not run again: "; NULL for the first two. */
const char *rs_retry_why(enum rs_retry_verdict v);
