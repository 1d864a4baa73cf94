#include "sched/canary.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"

#include <float.h>
#include <math.h>

/* Not harm yet, and not nothing. */
#define DOUBT 20.0
/* So much more is never slow: what a scheduler does to anyone. */
#define SLACK RS_MS
/* So few are never proof. */
enum { BAD_MIN = 3 };

static const char *const why_names[RS_CANARY_WHYS] = {"time", "too_few_requests", "doubt", "errors",
                                                      "slow"};

const char *rs_canary_why_name(enum rs_canary_why why)
{
    return why_names[why];
}

static void begin_step(struct rs_canary *c, int64_t now)
{
    c->since = now;
    c->why = RS_CANARY_TIME;
    c->errors = c->limit = c->slow = (struct rs_evidence){0};
    c->slow_old = c->slow_fresh = 0;
    c->old.requests = c->old.errors = c->old.deaths = 0;
    c->fresh.requests = c->fresh.errors = c->fresh.deaths = 0;
}

struct rs_canary_conf rs_canary_conf_of(const struct rs_rollout_conf *conf)
{
    const struct rs_rollout_canary_conf *y = &conf->canary;
    struct rs_canary_conf c = {
        .max_error_rate = conf->analysis.max_error_rate,
        .max_p99_ratio = conf->analysis.max_p99_ratio,
        .min_requests = (unsigned)conf->analysis.min_requests,
    };

    if (!y->enabled)
        return c;
    c = (struct rs_canary_conf){
        .each = y->each,
        .max_error_rate = y->max_error_rate,
        .max_p99_ratio = y->max_p99_ratio,
        .min_requests = (unsigned)y->min_requests,
        .too_few = (enum rs_canary_too_few)y->too_few,
    };
    for (size_t i = 0; i < y->n_steps; i++) {
        if (y->steps[i] < 100)
            c.steps[c.n_steps++] = y->steps[i] / 100;
    }
    return c;
}

void rs_canary_start(struct rs_canary *c, const struct rs_canary_conf *conf, int64_t now)
{
    *c = (struct rs_canary){.conf = *conf};
    if (c->conf.false_alarm <= 0)
        c->conf.false_alarm = RS_CANARY_FALSE_ALARM;
    begin_step(c, now);
}

/* --- evidence ---------------------------------------------------------------------------------- */

/* A replica that died: one more request, that failed. */
static uint64_t asked(const struct rs_tally *t)
{
    return t->requests + t->deaths;
}

static uint64_t failed(const struct rs_tally *t)
{
    uint64_t n = t->errors + t->deaths;

    return n < asked(t) ? n : asked(t);
}

static void judge_errors(struct rs_canary *c, const struct rs_tally *old,
                         const struct rs_tally *fresh)
{
    rs_evidence_compare(&c->errors, &(struct rs_evidence_batch){.old_n = asked(old),
                                                                .old_bad = failed(old),
                                                                .new_n = asked(fresh),
                                                                .new_bad = failed(fresh)});
    if (c->conf.max_error_rate > 0 && c->conf.max_error_rate < 1)
        rs_evidence_limit(&c->limit, asked(fresh), failed(fresh), c->conf.max_error_rate);
}

/* By the p99 of what came before: so the batch itself has no say in where the line is drawn. */
static void judge_slowness(struct rs_canary *c, const struct rs_tally *old,
                           const struct rs_tally *fresh)
{
    struct rs_evidence_batch b = {.old_n = rs_tally_timed(old), .new_n = rs_tally_timed(fresh)};
    int64_t p99, line;
    unsigned at;

    if (c->conf.max_p99_ratio <= 0 || rs_tally_timed(&c->old.whole) < RS_CANARY_TIMED_MIN ||
        rs_tally_timed(&c->fresh.whole) < RS_CANARY_WARM)
        return;
    at = (unsigned)rs_tally_quantile(&c->old.whole, 0.99);
    p99 = rs_tally_upper(at);
    line = (int64_t)((double)p99 * c->conf.max_p99_ratio);
    if (line < p99 + SLACK)
        line = p99 + SLACK;
    b.old_bad = rs_tally_above(old, at);
    b.new_bad = rs_tally_above(fresh, rs_tally_bucket(line));
    c->slow_old += b.old_bad;
    c->slow_fresh += b.new_bad;
    rs_evidence_compare(&c->slow, &b);
}

static void take(struct rs_canary_side *s, const struct rs_tally *batch)
{
    rs_tally_add(&s->whole, batch);
    s->requests += batch->requests;
    s->errors += batch->errors;
    s->deaths += batch->deaths;
}

void rs_canary_feed(struct rs_canary *c, const struct rs_tally *old, const struct rs_tally *fresh)
{
    if (c->state != RS_CANARY_RUNNING)
        return;
    judge_errors(c, old, fresh);
    judge_slowness(c, old, fresh);
    take(&c->old, old);
    take(&c->fresh, fresh);
}

void rs_canary_hold(struct rs_canary *c, int64_t now)
{
    c->since = now;
}

/* --- verdicts ---------------------------------------------------------------------------------- */

/* Both must be shown: more than the old one, and more than is allowed. */
static double log_errors(const struct rs_canary *c)
{
    double a = rs_evidence_log(&c->errors);
    double b = c->conf.max_error_rate <= 0   ? DBL_MAX
               : c->conf.max_error_rate >= 1 ? -DBL_MAX
                                             : rs_evidence_log(&c->limit);

    return a < b ? a : b;
}

static double log_slow(const struct rs_canary *c)
{
    return c->conf.max_p99_ratio > 0 ? rs_evidence_log(&c->slow) : -DBL_MAX;
}

/* What the evidence of one of two tests of one of the steps must reach. */
static double log_bound(const struct rs_canary *c)
{
    double tests = 2 * (double)(c->conf.n_steps ? c->conf.n_steps : 1);

    return log(tests / c->conf.false_alarm);
}

double rs_canary_sure(const struct rs_canary *c, enum rs_canary_why what)
{
    double e = what == RS_CANARY_ERRORS ? log_errors(c) : log_slow(c);

    return e > 0 ? 1 - exp(-e) : 0;
}

static bool harmful(struct rs_canary *c)
{
    double bound = log_bound(c);

    if (log_errors(c) >= bound && c->fresh.errors + c->fresh.deaths >= BAD_MIN)
        c->why = RS_CANARY_ERRORS;
    else if (log_slow(c) >= bound && c->slow_fresh >= BAD_MIN)
        c->why = RS_CANARY_SLOW;
    else
        return false;
    return true;
}

static bool has_too_few(const struct rs_canary *c)
{
    return c->fresh.requests < c->conf.min_requests;
}

static enum rs_canary_did end(struct rs_canary *c, enum rs_canary_state state)
{
    c->state = state;
    return RS_CANARY_ENDED;
}

static enum rs_canary_did step_over(struct rs_canary *c, int64_t now)
{
    if (++c->step == c->conf.n_steps)
        return end(c, RS_CANARY_PASSED);
    begin_step(c, now);
    return RS_CANARY_STEPPED;
}

static bool in_doubt(const struct rs_canary *c)
{
    return log_errors(c) >= log(DOUBT) || log_slow(c) >= log(DOUBT);
}

bool rs_canary_is_well(const struct rs_canary *c)
{
    return c->state == RS_CANARY_RUNNING && !has_too_few(c) && !in_doubt(c);
}

enum rs_canary_did rs_canary_tick(struct rs_canary *c, int64_t now)
{
    if (c->state != RS_CANARY_RUNNING)
        return RS_CANARY_NOTHING;
    if (harmful(c))
        return end(c, RS_CANARY_HARMFUL);
    c->why = RS_CANARY_TIME;
    if (!c->conf.n_steps || now - c->since < c->conf.each)
        return RS_CANARY_NOTHING;
    if (in_doubt(c)) {
        c->why = RS_CANARY_DOUBT;
        return RS_CANARY_NOTHING;
    }
    if (has_too_few(c) && c->conf.too_few != RS_CANARY_PROMOTE) {
        c->why = RS_CANARY_REQUESTS;
        return c->conf.too_few == RS_CANARY_ROLLBACK ? end(c, RS_CANARY_HARMFUL)
                                                     : RS_CANARY_NOTHING;
    }
    return step_over(c, now);
}

int64_t rs_canary_deadline(const struct rs_canary *c)
{
    bool due = c->state == RS_CANARY_RUNNING && c->conf.n_steps && c->why == RS_CANARY_TIME;

    return due ? c->since + c->conf.each : INT64_MAX;
}

double rs_canary_share(const struct rs_canary *c)
{
    if (c->state == RS_CANARY_HARMFUL)
        return 0;
    if (!c->conf.n_steps)
        return -1;
    return c->step < c->conf.n_steps ? c->conf.steps[c->step] : 1;
}

/* --- what people are told ---------------------------------------------------------------------- */

/* Of the whole canary: of one step there may be few. */
static double p99_ms(const struct rs_canary_side *s)
{
    int at = rs_tally_quantile(&s->whole, 0.99);

    return at < 0 ? -1 : (double)rs_tally_upper((unsigned)at) / (double)RS_MS;
}

static void put_side(struct rs_buf *b, const char *name, const struct rs_canary_side *s)
{
    double ms = p99_ms(s);

    rs_buf_printf(b, "%s: %llu requests, %llu errors", name, (unsigned long long)s->requests,
                  (unsigned long long)s->errors);
    if (s->requests)
        rs_buf_printf(b, " (%.3g %%)", 100.0 * (double)s->errors / (double)s->requests);
    if (s->deaths)
        rs_buf_printf(b, ", %llu replicas died", (unsigned long long)s->deaths);
    if (ms >= 0)
        rs_buf_printf(b, ", p99 %.3g ms", ms);
}

char *rs_canary_text(const struct rs_canary *c)
{
    struct rs_buf b = {0};
    char *text;

    put_side(&b, "new version", &c->fresh);
    put_side(&b, "; old version", &c->old);
    if (c->state == RS_CANARY_HARMFUL && c->why != RS_CANARY_REQUESTS)
        rs_buf_printf(
            &b, "; false alarm at most 1 in %.0f",
            fmin(1e9, exp(fmin(30, c->why == RS_CANARY_SLOW ? log_slow(c) : log_errors(c)))));
    text = rs_strdup(rs_buf_text(&b));
    rs_buf_fini(&b);
    return text;
}

static json_t *side_json(const struct rs_canary_side *s)
{
    double ms = p99_ms(s);

    return json_pack("{s:I, s:I, s:I, s:o}", "requests", (json_int_t)s->requests, "errors",
                     (json_int_t)s->errors, "deaths", (json_int_t)s->deaths, "p99_ms",
                     ms < 0 ? json_null() : json_real(ms));
}

json_t *rs_canary_json(const struct rs_canary *c, int64_t now)
{
    static const char *const states[] = {"running", "passed", "harmful"};
    json_t *steps = json_array();
    double share = rs_canary_share(c);

    for (size_t i = 0; i < c->conf.n_steps; i++)
        json_array_append_new(steps, json_real(c->conf.steps[i]));
    return json_pack(
        "{s:s, s:o, s:i, s:o, s:o, s:f, s:f, s:o, s:o, s:{s:f, s:f, s:f}}", "state",
        states[c->state], "why",
        c->state == RS_CANARY_PASSED ? json_null() : json_string(why_names[c->why]), "step",
        (int)c->step + 1, "steps", steps, "weight", share < 0 ? json_null() : json_real(share),
        "step_age_s", (double)(now - c->since) / (double)RS_SEC, "each_s",
        (double)c->conf.each / (double)RS_SEC, "old", side_json(&c->old), "new",
        side_json(&c->fresh), "confidence_of_harm", "errors", rs_canary_sure(c, RS_CANARY_ERRORS),
        "slow", rs_canary_sure(c, RS_CANARY_SLOW), "needed", 1 - exp(-log_bound(c)));
}
