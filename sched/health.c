#include "sched/health.h"

#include "core/base/clock.h"
#include "core/base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- names and words ----------------------------------------------------------------------------- */

static const struct {
    const char *name, *status;
    bool illness;
} conditions[] = {
#define RS_X(condition, name, status, health) {name, status, health},
    RS_HEALTH_CONDITIONS(RS_X)
#undef RS_X
};

static const char *const actions[] = {"tell", "spare", "replace", "end", "kill"};

const char *rs_health_condition_name(enum rs_health_condition c)
{
    return c < RS_HEALTH_CONDITION_COUNT ? conditions[c].name : "?";
}

int rs_health_condition_parse(const char *name)
{
    for (size_t i = 0; i < RS_COUNT(conditions); i++)
        if (strcmp(conditions[i].name, name) == 0)
            return (int)i;
    return -1;
}

const char *rs_health_status_name(enum rs_health_condition c)
{
    return c < RS_HEALTH_CONDITION_COUNT ? conditions[c].status : "?";
}

bool rs_health_is_illness(enum rs_health_condition c)
{
    return c < RS_HEALTH_CONDITION_COUNT && conditions[c].illness;
}

const char *rs_health_action_name(enum rs_health_action a)
{
    return a < RS_HEALTH_ACTION_COUNT ? actions[a] : "?";
}

static double mib(double bytes)
{
    return bytes / (1 << 20);
}

void rs_health_text(struct rs_buf *out, const struct rs_health_finding *f)
{
    switch (f->what) {
    case RS_HEALTH_WELL:
        rs_buf_puts(out, "well");
        break;
    case RS_HEALTH_CHECK_FAILED:
        rs_buf_printf(out, "health check failed %.0f time%s in a row (limit %.0f)", f->value,
                      f->value == 1 ? "" : "s", f->limit);
        break;
    case RS_HEALTH_SILENT:
        rs_buf_printf(out, "not answering: nothing was heard of it for %.3g s (limit %.3g s)",
                      f->value, f->limit);
        break;
    case RS_HEALTH_STUCK:
        rs_buf_printf(out,
                      "stuck: it has %u request%s and brought none forward for %.3g s (limit "
                      "%.3g s; 99 %% of the requests take %.3g s)",
                      f->waiting, f->waiting == 1 ? "" : "s", f->value, f->limit, f->usual);
        break;
    case RS_HEALTH_SLOW:
        rs_buf_printf(out,
                      "slow: half of its requests take more than %.3g s (limit %.3g s; its %u "
                      "siblings: %.3g s)",
                      f->value, f->limit, f->siblings, f->usual);
        break;
    case RS_HEALTH_MEMORY:
        rs_buf_printf(out, "it has %.0f MiB of memory (limit %.0f MiB)", mib(f->value),
                      mib(f->limit));
        break;
    case RS_HEALTH_GROWTH:
        rs_buf_printf(out, "its memory grew by %.0f MiB (limit %.0f MiB)", mib(f->value),
                      mib(f->limit));
        break;
    case RS_HEALTH_AGE:
        rs_buf_printf(out, "it is %.0f s old (limit %.0f s)", f->value, f->limit);
        break;
    case RS_HEALTH_REQUESTS:
        rs_buf_printf(out, "it has done %.0f requests (limit %.0f)", f->value, f->limit);
        break;
    case RS_HEALTH_ASKED:
        rs_buf_puts(out, "somebody asked for it");
        break;
    default: /* DEAD, OOM: what its end told says more */
        rs_buf_puts(out, rs_health_condition_name(f->what));
        break;
    }
}

json_t *rs_health_json(const struct rs_health_finding *f, double wall_offset_s)
{
    json_t *j = json_pack("{s:s, s:s}", "condition", rs_health_condition_name(f->what), "action",
                          rs_health_action_name(f->action));
    struct rs_buf text = {0};

    if (f->since)
        json_object_set_new(j, "since_s", json_real((double)f->since / 1e9 + wall_offset_s));
    if (f->unit) {
        json_object_set_new(j, "value", json_real(f->value));
        json_object_set_new(j, "limit", json_real(f->limit));
        json_object_set_new(j, "unit", json_string(f->unit));
    }
    if (f->usual > 0)
        json_object_set_new(j, "usual_s", json_real(f->usual));
    if (f->siblings)
        json_object_set_new(j, "siblings", json_integer(f->siblings));
    if (f->waiting)
        json_object_set_new(j, "waiting", json_integer(f->waiting));
    rs_health_text(&text, f);
    json_object_set_new(j, "text", json_string(rs_buf_text(&text)));
    rs_buf_fini(&text);
    return j;
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* --- not answering ------------------------------------------------------------------------------- */

static int64_t silent_limit(const struct rs_health_conf *c, int64_t check)
{
    return c->not_answering > 0 ? c->not_answering : 3 * check;
}

/* Other replicas take its requests for a moment: that costs nothing, so it may be soon. */
static int64_t silent_spare(int64_t limit)
{
    return limit / 10;
}

bool rs_silent_judge(const struct rs_health_conf *c, int64_t check, int64_t since, int64_t now,
                     struct rs_health_finding *ret)
{
    int64_t limit = silent_limit(c, check);

    if (!since || now - since < silent_spare(limit))
        return false;
    *ret = (struct rs_health_finding){
        .what = RS_HEALTH_SILENT,
        .action = now - since >= limit ? RS_HEALTH_KILL : RS_HEALTH_SPARE,
        .since = since,
        .value = seconds(now - since),
        .limit = seconds(limit),
        .unit = "s",
    };
    return true;
}

int64_t rs_silent_deadline(const struct rs_health_conf *c, int64_t check, int64_t since,
                           int64_t now)
{
    int64_t limit = silent_limit(c, check);

    return since + (now - since < silent_spare(limit) ? silent_spare(limit) : limit);
}

/* --- stuck --------------------------------------------------------------------------------------- */

void rs_stall_feed(struct rs_stall *s, const struct rs_health_sample *x, int64_t now)
{
    int64_t gap = now - s->at;
    bool moves = !s->at || x->moved != s->moved || x->calls > 0;

    if (moves) {
        s->since = now;
        s->time = 0;
    } else if (s->waiting || x->given_up != s->given_up) {
        s->time += gap < RS_STALL_GAP ? gap : RS_STALL_GAP;
    }
    s->at = now;
    s->moved = x->moved;
    s->given_up = x->given_up;
    s->waiting = x->in_flight > x->open;
}

static int64_t quantile(const struct rs_tally *t, double q)
{
    int at = rs_tally_quantile(t, q);

    return at < 0 ? 0 : rs_tally_upper((unsigned)at);
}

int64_t rs_stall_limit(const struct rs_health_conf *c, const struct rs_tally *own,
                       const struct rs_tally *all, int64_t at_least, int64_t *usual)
{
    uint64_t enough = (uint64_t)c->stuck_min_requests;
    int64_t limit, longest = 3 * quantile(all, 1);

    if (c->stuck_factor <= 0 || rs_tally_timed(all) < enough)
        return 0;
    *usual = quantile(rs_tally_timed(own) >= enough ? own : all, 0.99);
    limit = (int64_t)fmin(c->stuck_factor * (double)*usual, 1e18);
    limit = limit > c->stuck_after ? limit : c->stuck_after;
    limit = limit > longest ? limit : longest;
    return limit > at_least ? limit : at_least;
}

bool rs_stall_judge(const struct rs_stall *s, int64_t limit, int64_t usual, unsigned waiting,
                    struct rs_health_finding *ret)
{
    if (!limit || s->time < limit / 2)
        return false;
    *ret = (struct rs_health_finding){
        .what = RS_HEALTH_STUCK,
        .action = s->time >= limit ? RS_HEALTH_END : RS_HEALTH_SPARE,
        .since = s->since,
        .value = seconds(s->time),
        .limit = seconds(limit),
        .unit = "s",
        .usual = seconds(usual),
        .waiting = waiting,
    };
    return true;
}

/* --- slow ---------------------------------------------------------------------------------------- */

unsigned rs_eject_most(const struct rs_health_conf *c, unsigned n)
{
    unsigned most = n * (unsigned)c->max_ejected_percent / 100;

    if (c->max_ejected_percent <= 0)
        return 0;
    return most ? most : 1;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

double rs_median(double *v, size_t n)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof(*v), by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

enum { SIBLINGS_MAX = 256 }; /* more do not make the median better */

/* A replica that gets a tenth of its requests has fewer to show. */
static bool has_enough(const struct rs_health_conf *c, const struct rs_slow_one *x)
{
    uint64_t enough = (uint64_t)c->slow_min_requests;

    if (x->state->spared)
        enough = enough / RS_SLOW_SHARE ? enough / RS_SLOW_SHARE : 1;
    return x->count >= enough;
}

/* The siblings' median of medians, and what is out of their range. */
struct range {
    unsigned n;
    double middle, most, calm; /* s; below `calm` it has recovered */
};

static struct range range_of(const struct rs_health_conf *c, const struct rs_slow_one *all,
                             size_t n, size_t but)
{
    double v[SIBLINGS_MAX], spread;
    struct range r = {0};

    for (size_t i = 0; i < n && r.n < SIBLINGS_MAX; i++)
        if (i != but && has_enough(c, &all[i]) && !all[i].state->spared)
            v[r.n++] = all[i].median;
    if (r.n < RS_SLOW_SIBLINGS)
        return r;
    r.middle = rs_median(v, r.n);
    for (unsigned i = 0; i < r.n; i++)
        v[i] = fabs(v[i] - r.middle);
    spread = 1.4826 * rs_median(v, r.n); /* the deviation, if they were distributed normally */
    r.most = fmax(fmax(c->slow_factor * r.middle, r.middle + 6 * spread), r.middle + 0.005);
    r.calm =
        fmax(fmax((1 + c->slow_factor) / 2 * r.middle, r.middle + 3 * spread), r.middle + 0.0025);
    return r;
}

static void be_calm(struct rs_slow *s)
{
    s->strikes = 0;
    if (s->spared && ++s->calm < 2)
        return;
    *s = (struct rs_slow){0};
}

/* True: it counts as one of those that may be spared. */
static bool judge_one(const struct rs_health_conf *c, struct rs_slow_one *x, const struct range *r,
                      bool may, int64_t now)
{
    struct rs_slow *s = x->state;
    bool was = s->spared;

    if (x->median <= (s->spared ? r->calm : r->most)) {
        be_calm(s);
    } else {
        s->calm = 0;
        s->strikes += s->strikes < RS_SLOW_STRIKES;
        if (!s->spared && s->strikes == RS_SLOW_STRIKES && may) {
            s->spared = true;
            s->since = now;
        }
    }
    x->finding = s->strikes == RS_SLOW_STRIKES || s->spared;
    x->found = (struct rs_health_finding){
        .what = RS_HEALTH_SLOW,
        .action = !s->spared ? RS_HEALTH_TELL
                  : c->slow_replace_after > 0 && now - s->since >= c->slow_replace_after
                      ? RS_HEALTH_REPLACE
                      : RS_HEALTH_SPARE,
        .since = s->since,
        .value = x->median,
        .limit = r->most,
        .unit = "s",
        .usual = r->middle,
        .siblings = r->n,
    };
    return s->spared && !was;
}

void rs_slow_judge(const struct rs_health_conf *c, struct rs_slow_one *all, size_t n,
                   unsigned spare, int64_t now)
{
    for (size_t i = 0; i < n; i++) {
        struct range r;

        all[i].finding = false;
        if (c->slow_factor <= 0) {
            *all[i].state = (struct rs_slow){0};
            continue;
        }
        r = range_of(c, all, n, i);
        if (r.n < RS_SLOW_SIBLINGS) { /* nobody to compare it with: back to the others */
            *all[i].state = (struct rs_slow){0};
        } else if (has_enough(c, &all[i])) {
            spare -= judge_one(c, &all[i], &r, spare > 0, now);
        } else if (all[i].state->spared) { /* it had too little to do to tell: it is as it was */
            all[i].finding = true;
            all[i].found = (struct rs_health_finding){
                .what = RS_HEALTH_SLOW,
                .action = RS_HEALTH_SPARE,
                .since = all[i].state->since,
                .value = all[i].median,
                .limit = r.most,
                .unit = "s",
                .usual = r.middle,
                .siblings = r.n,
            };
        }
    }
}

/* --- replace one that is well -------------------------------------------------------------------- */

bool rs_wear_asked(const struct rs_replace_conf *c)
{
    return c->memory > 0 || c->memory_growth > 0 || c->age > 0 || c->requests > 0;
}

/* Each has its share of it, by its id. */
static double jitter(const struct rs_replace_conf *c, uint32_t hash)
{
    return 1 - c->jitter_percent / 100.0 * ((double)hash / UINT32_MAX);
}

int64_t rs_wear_age_limit(const struct rs_replace_conf *c, uint32_t hash)
{
    return c->age > 0 ? (int64_t)((double)c->age * jitter(c, hash)) : -1;
}

bool rs_wear_judge(const struct rs_replace_conf *c, const struct rs_wear *w,
                   struct rs_health_finding *ret)
{
    int64_t age = rs_wear_age_limit(c, w->hash);
    double requests = c->requests > 0 ? ceil(c->requests * jitter(c, w->hash)) : -1;
    struct rs_health_finding f = {.action = RS_HEALTH_REPLACE};

    if (c->memory > 0 && w->memory >= (uint64_t)c->memory) {
        f.what = RS_HEALTH_MEMORY;
        f.value = (double)w->memory;
        f.limit = (double)c->memory;
        f.unit = "bytes";
    } else if (c->memory_growth > 0 && w->memory_first &&
               w->memory >= w->memory_first + (uint64_t)c->memory_growth) {
        f.what = RS_HEALTH_GROWTH;
        f.value = (double)(w->memory - w->memory_first);
        f.limit = (double)c->memory_growth;
        f.unit = "bytes";
    } else if (age >= 0 && w->age >= age) {
        f.what = RS_HEALTH_AGE;
        f.value = seconds(w->age);
        f.limit = seconds(age);
        f.unit = "s";
    } else if (requests >= 0 && (double)w->requests >= requests) {
        f.what = RS_HEALTH_REQUESTS;
        f.value = (double)w->requests;
        f.limit = requests;
        f.unit = "requests";
    } else {
        return false;
    }
    *ret = f;
    return true;
}
