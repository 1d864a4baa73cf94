#include "net/router/retry.h"

#include "core/base/clock.h"

#include <stddef.h>

static const struct {
    const char *name, *why;
} verdicts[RS_RETRY_VERDICTS] = {
    [RS_RETRY_RETURN] = {"return", NULL},
    [RS_RETRY_AGAIN] = {"again", NULL},
    [RS_RETRY_ANSWERED] = {"answered", "its answer had begun"},
    [RS_RETRY_UNSAFE] = {"unsafe", "it may have had an effect, and nothing says that it is "
                                   "idempotent"},
    [RS_RETRY_CUT] = {"cut", "its body came in pieces that were not kept"},
    [RS_RETRY_OFTEN] = {"often", "it was run too often already"},
    [RS_RETRY_BUDGET] = {"budget", "the retry budget of the deployment is used up"},
};

const char *rs_retry_name(enum rs_retry_verdict v)
{
    return verdicts[v].name;
}

const char *rs_retry_why(enum rs_retry_verdict v)
{
    return verdicts[v].why;
}

void rs_retry_budget_init(struct rs_retry_budget *b, unsigned floor, unsigned percent)
{
    *b = (struct rs_retry_budget){.percent = percent};
    rs_retry_budget_floor(b, floor);
}

void rs_retry_budget_floor(struct rs_retry_budget *b, unsigned floor)
{
    b->floor = floor < RS_RETRY_FLOOR ? RS_RETRY_FLOOR : floor;
}

unsigned rs_retry_floor(unsigned max_ongoing)
{
    const unsigned most = 100;

    if (max_ongoing >= most)
        return max_ongoing;
    return max_ongoing * RS_RETRY_RUNS < most ? max_ongoing * RS_RETRY_RUNS : most;
}

/* The slots between the last second and this one are emptied. */
void rs_retry_budget_turn(struct rs_retry_budget *b, int64_t now)
{
    int64_t steps;

    if (now < b->next)
        return;
    steps = (now - b->next) / RS_SEC + 1;
    b->next += steps * RS_SEC;
    for (int64_t i = 0; i < steps && i < RS_RETRY_WINDOW; i++) {
        b->at = (b->at + 1) % RS_RETRY_WINDOW;
        b->asked_sum -= b->asked[b->at];
        b->spent_sum -= b->spent[b->at];
        b->asked[b->at] = b->spent[b->at] = 0;
    }
}

uint64_t rs_retry_budget_left(struct rs_retry_budget *b, int64_t now)
{
    uint64_t most;

    rs_retry_budget_turn(b, now);
    most = b->floor + b->asked_sum * b->percent / 100;
    return most > b->spent_sum ? most - b->spent_sum : 0;
}

enum rs_retry_verdict rs_retry_decide(struct rs_retry *r, struct rs_retry_budget *b, bool started,
                                      bool whole, int64_t now)
{
    if (r->answered)
        return RS_RETRY_ANSWERED;
    if (started && !r->safe)
        return RS_RETRY_UNSAFE;
    if (!whole)
        return RS_RETRY_CUT;
    if (!started)
        return RS_RETRY_RETURN;
    if (r->again + 1 >= RS_RETRY_RUNS)
        return RS_RETRY_OFTEN;
    if (!rs_retry_budget_left(b, now))
        return RS_RETRY_BUDGET;
    b->spent[b->at]++;
    b->spent_sum++;
    r->again++;
    return RS_RETRY_AGAIN;
}
