#include "sched/rollout.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const char *const phases[] = {
#define RS_X(name, text) text,
    RS_ROLLOUT_PHASES(RS_X)
#undef RS_X
};
static const char *const whys[] = {
#define RS_X(name, text) text,
    RS_ROLLOUT_WHYS(RS_X)
#undef RS_X
};

const char *rs_rollout_phase_name(enum rs_rollout_phase p)
{
    return phases[p];
}

const char *rs_rollout_why_name(enum rs_rollout_why w)
{
    return whys[w];
}

static int find(const char *const *names, int n, const char *name)
{
    for (int i = 0; name && i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

int rs_rollout_phase_parse(const char *name)
{
    return find(phases, RS_ROLLOUT_PHASE_COUNT, name);
}

int rs_rollout_why_parse(const char *name)
{
    return find(whys, RS_ROLLOUT_WHY_COUNT, name);
}

/* --- numbers ------------------------------------------------------------------------------------- */

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned most(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

/* a - b, not below 0. */
static unsigned minus(unsigned a, unsigned b)
{
    return a > b ? a - b : 0;
}

/* Up to whole units; what is whole but for a rounding error stays. */
static unsigned whole(double n, unsigned unit)
{
    return (unsigned)ceil(n / unit - 1e-9) * unit;
}

unsigned rs_rollout_surge(const struct rs_deployment_conf *conf, unsigned wanted, unsigned unit)
{
    return whole(conf->max_surge_percent / 100.0 * wanted, unit);
}

unsigned rs_rollout_batch(const struct rs_deployment_conf *conf, unsigned wanted, unsigned unit)
{
    return most(whole(floor(conf->rolling_update_percentage * wanted + 1e-9), unit), unit);
}

void rs_rollout_split(unsigned wanted, unsigned unit, double percent, bool surge, unsigned *new_run,
                      unsigned *old_run)
{
    unsigned some = least(whole(percent / 100.0 * wanted, unit), wanted);
    unsigned rest = least(whole((100.0 - percent) / 100.0 * wanted, unit), wanted);

    *new_run = some;
    *old_run = surge ? rest : wanted - some;
}

/* --- where it may get ---------------------------------------------------------------------------- */

/* What new replicas may be, and old ones must be, at the share that holds now. */
struct bounds {
    unsigned most_new, least_old;
    enum rs_rollout_why hold; /* NONE: up to the end */
};

static struct bounds bounds_of(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                               const struct rs_rollout_in *in)
{
    const struct rs_rollout_conf *c = &conf->rollout;
    struct bounds b = {.most_new = in->wanted};
    unsigned k = whole(c->pause_replicas, in->unit);
    double pause = 100;

    if (!r->past_pause && c->pause_percent > 0)
        pause = c->pause_percent;
    else if (!r->past_pause && k > 0 && k < in->wanted)
        pause = 100.0 * k / in->wanted;
    r->share = pause <= in->canary_share ? pause : in->canary_share;
    if (r->share >= 100)
        return b;
    b.hold = pause <= in->canary_share ? RS_ROLLOUT_WHY_PAUSE_AFTER : RS_ROLLOUT_WHY_CANARY;
    rs_rollout_split(in->wanted, in->unit, r->share, r->surge > 0, &b.most_new, &b.least_old);
    return b;
}

/* New replicas count once they were up for min_ready without a break. */
static void settle(struct rs_rollout *r, int64_t min_ready, unsigned up, int64_t now)
{
    r->ready = least(r->ready, up);
    if (min_ready <= 0)
        r->ready = up;
    if (up <= r->ready) {
        r->candidates = 0;
        r->candidates_at = 0;
        return;
    }
    if (r->candidates_at == 0 || r->candidates <= r->ready) {
        r->candidates = up;
        r->candidates_at = now;
    }
    r->candidates = least(r->candidates, up);
    if (now - r->candidates_at >= min_ready) {
        r->ready = r->candidates;
        r->candidates = up > r->ready ? up : 0;
        r->candidates_at = up > r->ready ? now : 0;
    }
}

/* --- judging ------------------------------------------------------------------------------------- */

static void enter(struct rs_rollout *r, enum rs_rollout_phase phase, enum rs_rollout_why why,
                  int64_t now)
{
    if (r->phase != phase)
        r->since = now;
    r->phase = phase;
    r->why = why;
}

static void stop(struct rs_rollout *r, enum rs_rollout_why why, unsigned failures, int64_t now)
{
    r->failures = failures;
    enter(r, RS_ROLLOUT_STOPPED, why, now);
}

static void count_from_here(struct rs_rollout *r, const struct rs_rollout_in *in, int64_t now)
{
    r->progress_at = now;
    r->failures_before = in->failures;
}

/* Nobody waits for a new replica that could come by itself. */
static bool idle(const struct rs_rollout *r, const struct rs_rollout_in *in)
{
    return r->phase == RS_ROLLOUT_PAUSED || r->new_run <= r->ready ||
           (in->full && in->new_live <= r->ready);
}

static void judge(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                  const struct rs_rollout_in *in, int64_t now)
{
    int64_t deadline = conf->rollout.deadline;

    if (r->phase == RS_ROLLOUT_STOPPED)
        return;
    if (in->away) { /* its counters are not there, nor what it has ready */
        r->progress_at = now;
        return;
    }
    r->failures_before = least(r->failures_before, in->failures); /* a node counts anew */
    r->deaths_before = least(r->deaths_before, in->deaths);
    if (r->ready > r->best) {
        r->best = r->ready;
        count_from_here(r, in, now);
    }
    if (idle(r, in))
        r->progress_at = now;
    r->limit = in->failure_limit;
    r->waited = now - r->progress_at;
    if (in->failed || (r->limit && in->failures - r->failures_before >= r->limit)) {
        stop(r, RS_ROLLOUT_WHY_START_FAILED,
             in->failures > r->failures_before ? in->failures - r->failures_before : in->failures,
             now);
    } else if (in->death_limit && in->deaths - r->deaths_before >= in->death_limit) {
        r->limit = in->death_limit;
        stop(r, RS_ROLLOUT_WHY_DEATHS, in->deaths - r->deaths_before, now);
    } else if (deadline > 0 && r->waited >= deadline) {
        stop(r, RS_ROLLOUT_WHY_NO_PROGRESS, 0, now);
    }
}

/* --- deciding ------------------------------------------------------------------------------------ */

/* New ones beside the old ones; an old one goes for each that is ready. */
static void surge_step(struct rs_rollout *r, const struct rs_rollout_in *in, const struct bounds *b)
{
    unsigned missing = minus(in->wanted, r->ready);

    r->old_run = least(r->old_run, missing);
    if (in->fresh && in->old_up < r->old_run) /* one that is not up is of no use to anyone */
        r->old_run = in->old_up;
    r->old_run = most(r->old_run, b->least_old);
    r->new_run = minus(in->wanted + r->surge, most(in->old_live, r->old_run));
}

/* What is missing is started; then a batch of old ones goes, if so few are missing. */
static void stop_first_step(struct rs_rollout *r, const struct rs_rollout_in *in,
                            const struct bounds *b)
{
    unsigned missing = minus(in->wanted, r->ready + in->old_up);
    unsigned go = minus(r->batch, missing);

    if (in->fresh && in->leaving == 0 && in->old_live <= r->old_run && in->new_live <= r->new_run)
        r->old_run = minus(least(r->old_run, in->old_up), go);
    r->old_run = most(least(r->old_run, minus(in->wanted, r->ready)), b->least_old);
    r->new_run = minus(in->wanted, most(in->old_live, r->old_run));
}

/* There is no room beside the old ones: as many of those go first as may be missing. */
static void make_room(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                      const struct rs_rollout_in *in, const struct bounds *b)
{
    unsigned up = r->ready + least(in->old_up, r->old_run);
    unsigned go = minus(up + r->batch, in->wanted);

    if (conf->rollout.when_full == RS_FULL_WAIT || !in->feasible) {
        r->why = RS_ROLLOUT_WHY_NO_ROOM;
        return;
    }
    r->why = RS_ROLLOUT_WHY_STOP_FIRST;
    if (in->fresh && in->leaving == 0 && in->old_live <= r->old_run && in->new_live <= r->ready)
        r->old_run = most(minus(r->old_run, go), b->least_old);
}

static void forward(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                    const struct rs_rollout_in *in, int64_t now)
{
    struct bounds b = bounds_of(r, conf, in);

    r->why = RS_ROLLOUT_WHY_NONE;
    if (r->surge > 0)
        surge_step(r, in, &b);
    else
        stop_first_step(r, in, &b);
    /* What is there and may be there stays, also where old ones are late to go. */
    r->new_run = least(most(r->new_run, in->new_live), b.most_new);
    if (in->full && r->new_run > in->new_live)
        make_room(r, conf, in, &b);
    r->old_run = (r->old_run + in->unit - 1) / in->unit * in->unit;
    r->new_run = r->new_run / in->unit * in->unit;
    if (b.hold && r->ready >= b.most_new)
        enter(r, RS_ROLLOUT_PAUSED, b.hold, now);
    else if (!b.hold && r->ready >= in->wanted && in->old_live == 0 && r->old_run == 0)
        enter(r, RS_ROLLOUT_DONE, RS_ROLLOUT_WHY_NONE, now);
    else if (r->ready > 0 || r->old_run < in->wanted)
        enter(r, RS_ROLLOUT_SHIFTING, r->why, now);
    else
        enter(r, RS_ROLLOUT_SURGING, r->why, now);
}

/* The roll the other way round. */
static void back(struct rs_rollout *r, const struct rs_rollout_in *in)
{
    unsigned missing = minus(in->wanted, in->old_up);
    unsigned keep = least(r->new_run, missing);

    if (r->surge == 0 || in->old_full)
        keep = least(keep, minus(missing, r->batch));
    if (in->fresh)
        keep = least(keep, in->new_up);
    r->new_run = keep;
    r->old_run = most(least(in->wanted, minus(in->wanted + r->surge, most(in->new_live, keep))),
                      least(r->old_run, in->wanted));
}

static void stopped(struct rs_rollout *r, const struct rs_rollout_in *in)
{
    if (rs_rollout_goes_back(r)) {
        back(r, in);
    } else {
        r->new_run = least(in->away ? r->new_run : least(r->new_run, in->new_up), in->wanted);
        r->old_run = minus(in->wanted, r->new_run / in->unit * in->unit);
    }
    r->new_run = r->new_run / in->unit * in->unit;
    r->old_run = (r->old_run + in->unit - 1) / in->unit * in->unit;
}

static void look(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                 const struct rs_rollout_in *in)
{
    assert(in->unit > 0);
    r->wanted = in->wanted;
    r->surge = rs_rollout_surge(conf, in->wanted, in->unit);
    r->batch = rs_rollout_batch(conf, in->wanted, in->unit);
    r->new_up = in->new_up;
    r->old_up = in->old_up;
    r->full = in->full;
}

/* What is reported may be from before the last answers: no more is believed than they left. */
static struct rs_rollout_in believed(struct rs_rollout *r, const struct rs_rollout_in *in)
{
    struct rs_rollout_in sure = *in;

    sure.fresh = in->fresh && !in->away;
    if (sure.fresh) {
        r->new_sure = r->new_run;
        r->old_sure = r->old_run;
    }
    sure.new_up = least(in->new_up, r->new_sure);
    sure.old_up = least(in->old_up, r->old_sure);
    return sure;
}

bool rs_rollout_step(struct rs_rollout *r, const struct rs_deployment_conf *conf,
                     const struct rs_rollout_in *seen, int64_t now)
{
    enum rs_rollout_phase phase = r->phase;
    enum rs_rollout_why why = r->why;
    struct rs_rollout_in sure = believed(r, seen);
    const struct rs_rollout_in *in = &sure;

    look(r, conf, in);
    if (!rs_rollout_active(r)) {
        r->new_run = in->wanted;
        r->old_run = 0;
        return false;
    }
    if (in->blind)
        return false;
    settle(r, conf->rollout.min_ready, in->new_up, now);
    judge(r, conf, in, now);
    if (r->phase == RS_ROLLOUT_STOPPED)
        stopped(r, in);
    else
        forward(r, conf, in, now);
    r->new_sure = least(r->new_sure, r->new_run);
    r->old_sure = least(r->old_sure, r->old_run);
    return r->phase != phase || r->why != why;
}

int64_t rs_rollout_deadline(const struct rs_rollout *r, const struct rs_deployment_conf *conf)
{
    int64_t at = INT64_MAX;

    if (!rs_rollout_active(r) || r->phase == RS_ROLLOUT_STOPPED)
        return at;
    if (r->candidates_at)
        at = r->candidates_at + conf->rollout.min_ready;
    if (conf->rollout.deadline > 0 && r->phase != RS_ROLLOUT_PAUSED && r->new_run > r->ready &&
        r->progress_at + conf->rollout.deadline < at)
        at = r->progress_at + conf->rollout.deadline;
    return at;
}

/* --- orders -------------------------------------------------------------------------------------- */

void rs_rollout_begin(struct rs_rollout *r, unsigned wanted, unsigned have, unsigned old,
                      int64_t now)
{
    *r = (struct rs_rollout){
        .phase = old > 0 ? RS_ROLLOUT_SURGING : RS_ROLLOUT_IDLE,
        .started_at = now,
        .since = now,
        .progress_at = now,
        .wanted = wanted,
        .new_run = old > 0 ? least(have, wanted) : wanted,
        .new_sure = least(have, wanted),
        .old_run = old,
        .old_sure = old,
        .share = 100,
    };
}

bool rs_rollout_active(const struct rs_rollout *r)
{
    return r->phase != RS_ROLLOUT_IDLE && r->phase != RS_ROLLOUT_DONE;
}

bool rs_rollout_goes_back(const struct rs_rollout *r)
{
    return r->phase == RS_ROLLOUT_STOPPED &&
           (r->why == RS_ROLLOUT_WHY_ABORTED || r->why == RS_ROLLOUT_WHY_CANARY_FAILED);
}

bool rs_rollout_resume(struct rs_rollout *r, const struct rs_rollout_in *in, int64_t now)
{
    bool paused = r->phase == RS_ROLLOUT_PAUSED && r->why == RS_ROLLOUT_WHY_PAUSE_AFTER;

    if (!paused && r->phase != RS_ROLLOUT_STOPPED)
        return false;
    r->past_pause |= paused;
    r->best = r->ready;
    r->failures = 0;
    r->deaths_before = in->deaths;
    count_from_here(r, in, now);
    enter(r, r->ready > 0 ? RS_ROLLOUT_SHIFTING : RS_ROLLOUT_SURGING, RS_ROLLOUT_WHY_NONE, now);
    return true;
}

bool rs_rollout_abort(struct rs_rollout *r, enum rs_rollout_why why, int64_t now)
{
    if (!rs_rollout_active(r) || rs_rollout_goes_back(r))
        return false;
    stop(r, why, 0, now);
    return true;
}
