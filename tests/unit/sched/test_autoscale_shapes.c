/* Loads of known shapes, drawn from seeds, against the autoscaler and a queue: it never swings while the
 * load stays, and never stays behind a load that stays for longer than its window, its delay and the start
 * of a replica. All on a virtual clock.
 */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "sched/autoscale.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK (200 * RS_MS)
#define SECONDS 2400
enum { TICKS = SECONDS * 5, SEEDS = 6, UPPER = 40 };

/* --- the load: requests that would be under way if all were served at once --------------------- */

static uint64_t seed;

static double draw(void) /* 0 to 1 */
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(seed >> 40) / (double)(1 << 24);
}

static void steps(double *offered)
{
    double level = 2;

    for (int i = 0; i < TICKS; i++) {
        if (draw() < 0.001)
            level = 1 + floor(draw() * 30);
        offered[i] = level;
    }
}

static void ramps(double *offered)
{
    double level = 2, slope = 0;

    for (int i = 0; i < TICKS; i++) {
        if (draw() < 0.0005)
            slope = (draw() - 0.5) / 25;
        level = fmin(fmax(level + slope, 0), 60);
        offered[i] = level;
    }
}

static void bursts(double *offered)
{
    int left = 0;
    double height = 0, base = 1 + floor(draw() * 5);

    for (int i = 0; i < TICKS; i++, left--) {
        if (left < -50 && draw() < 0.002) {
            left = 5 + (int)(draw() * 200);
            height = 5 + draw() * 40;
        }
        offered[i] = base + (left > 0 ? height : 0);
    }
}

static void days(double *offered)
{
    double period = (600 + draw() * 600) * 5, top = 10 + draw() * 40;

    for (int i = 0; i < TICKS; i++)
        offered[i] = top * pow(sin(M_PI * i / period), 2) + draw();
}

static void noise(double *offered)
{
    double level = 5 + draw() * 20, swing = 0;

    for (int i = 0; i < TICKS; i++) {
        swing = 0.9 * swing + (draw() - 0.5) * level / 2;
        offered[i] = fmax(level + swing, 0);
    }
}

static const struct {
    const char *name;
    void (*fill)(double *offered);
    bool steady; /* its mean stays: hardly any moves */
} shapes[] = {
    {"steps", steps, false}, {"ramps", ramps, false}, {"bursts", bursts, false},
    {"days", days, false},   {"noise", noise, true},
};

static const struct {
    double look_back, up, down, start; /* s */
    const char *how;
    int lower;
    unsigned turns; /* of a steady load, at most */
} confs[] = {
    {30, 30, 600, 2, "mean", 1, 3}, /* Ray's defaults */
    {5, 1, 30, 0.4, "mean", 0, 40},
    {2, 0, 20, 0.4, "max", 1, 60},
};

/* --- the world ------------------------------------------------------------------------------------ */

struct run {
    struct rs_autoscale a;
    struct rs_autoscaling_conf conf;
    struct rs_autoscale_facts facts;
    double in_system;           /* requests */
    double ready_at[UPPER + 1]; /* tick at which the n-th replica takes requests */
    double offered[TICKS], needed[TICKS];
    unsigned wanted[TICKS];
};

/* 5 at a time on each replica, 1 s each: those that are there leave at that rate. */
static void serve(struct run *r, int i)
{
    double at_work = fmin(r->in_system, r->facts.running * 5.0);

    r->in_system += (r->offered[i] - at_work) * 0.2;
    r->in_system = fmax(r->in_system, 0);
}

static void bring_up(struct run *r, int i, double start)
{
    unsigned up = 0;

    for (unsigned n = 1; n <= r->a.target && n <= UPPER; n++) {
        if (r->ready_at[n] < 0)
            r->ready_at[n] = i + start * 5;
        up += r->ready_at[n] <= i;
    }
    for (unsigned n = r->a.target + 1; n <= UPPER; n++)
        r->ready_at[n] = -1;
    r->facts.running = up;
}

static void simulate(struct run *r, size_t c)
{
    int64_t now = 100 * RS_SEC;

    r->conf = (struct rs_autoscaling_conf){
        .target_ongoing_requests = 2,
        .look_back_period = (int64_t)(confs[c].look_back * 1e9),
        .upscaling_factor = 1,
        .downscaling_factor = 1,
        .upscale_delay = (int64_t)(confs[c].up * 1e9),
        .downscale_delay = (int64_t)(confs[c].down * 1e9),
        .downscale_to_zero_delay = (int64_t)(confs[c].down * 1e9),
        .aggregation_function = confs[c].how,
    };
    r->facts =
        (struct rs_autoscale_facts){.lower = confs[c].lower, .upper = UPPER, .policy_wants = -1};
    for (unsigned n = 0; n <= UPPER; n++)
        r->ready_at[n] = -1;
    rs_autoscale_start(&r->a, 1, now);
    for (int i = 0; i < TICKS; i++, now += TICK) {
        bring_up(r, i, confs[c].start);
        serve(r, i);
        rs_autoscale_load(&r->a, 0, round(r->in_system), now);
        (void)rs_autoscale_decide(&r->a, &r->conf, &r->facts, now);
        r->wanted[i] = r->a.target;
        r->needed[i] = r->a.total / 2;
    }
    rs_autoscale_fini(&r->a);
}

/* --- what must hold ------------------------------------------------------------------------------- */

/* Down and up again only if more is needed than when it went down. */
static unsigned check_turns(const struct run *r, const char *name)
{
    unsigned turns = 0;
    int down = -1;

    for (int i = 1; i < TICKS; i++) {
        if (r->wanted[i] < r->wanted[i - 1])
            down = i;
        if (r->wanted[i] <= r->wanted[i - 1] || down < 0)
            continue;
        turns++;
        ck_assert_msg(r->needed[i] > r->wanted[down] && r->needed[i] > r->needed[down],
                      "%s: at %.1f s down to %u with %.2f needed, at %.1f s up to %u with %.2f",
                      name, down / 5.0, r->wanted[down], r->needed[down], i / 5.0, r->wanted[i],
                      r->needed[i]);
        down = -1;
    }
    return turns;
}

/* What was there for so long without a break has its replicas. */
static void check_provision(const struct run *r, size_t c, const char *name)
{
    int window = (int)((confs[c].look_back + confs[c].up + confs[c].start) * 5) + 10;

    for (int i = window; i < TICKS; i += 5) {
        double least = 1e9;

        for (int k = i - window; k <= i; k++)
            least = fmin(least, r->offered[k]);
        /* one request is lost in rounding, and because it comes near its end slowly */
        ck_assert_msg(r->wanted[i] >= fmin(UPPER, ceil((least - 1) / 2)),
                      "%s: at %.1f s %u replicas for at least %.1f requests", name, i / 5.0,
                      r->wanted[i], least);
    }
}

/* And what is too much for long enough goes. */
static void check_waste(const struct run *r, size_t c, const char *name)
{
    int window = (int)((confs[c].look_back + confs[c].down) * 5) + 300;

    for (int i = window; i < TICKS; i += 5) {
        double most = 0;

        for (int k = i - window; k <= i; k++)
            most = fmax(most, fmax(r->needed[k], r->offered[k] / 2));
        ck_assert_msg(r->wanted[i] <= fmax(1, ceil(most)),
                      "%s: at %.1f s %u replicas, %.2f needed at most", name, i / 5.0, r->wanted[i],
                      most);
    }
}

START_TEST(no_swings)
{
    size_t shape = (size_t)_i % RS_COUNT(shapes), c = (size_t)_i / RS_COUNT(shapes);
    struct run *r = rs_alloc(sizeof(*r));

    for (uint64_t s = 0; s < SEEDS; s++) {
        char name[60];
        unsigned turns;

        *r = (struct run){0};
        seed = s * 977 + (uint64_t)_i;
        snprintf(name, sizeof(name), "%s, configuration %zu, seed %d", shapes[shape].name, c,
                 (int)s);
        shapes[shape].fill(r->offered);
        simulate(r, c);
        turns = check_turns(r, name);
        if (shapes[shape].steady)
            ck_assert_msg(turns <= confs[c].turns, "%s: %u turns", name, turns);
        check_provision(r, c, name);
        check_waste(r, c, name);
    }
    free(r);
}
END_TEST

RS_CHECK_MAIN("autoscale_shapes",
              tcase_add_loop_test(tc, no_swings, 0, RS_COUNT(shapes) * RS_COUNT(confs));)
