/* The decisions of Ray Serve itself, replayed: testdata/autoscale/generate.py tells how they were had. */
#include "core/base/clock.h"
#include "sched/autoscale.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct replay {
    struct rs_autoscale a;
    struct rs_autoscaling_conf conf;
    struct rs_autoscale_facts facts;
    int64_t now;
    int number;
    unsigned steps, moves;
};

static int64_t ns(double s)
{
    return (int64_t)(s * 1e9 + 0.5);
}

static void begin(struct replay *r, const char *line)
{
    double per, up, down, up_delay, down_delay, zero_delay;
    int lower, upper, gang, n;
    unsigned target;
    char policy[16];

    n = sscanf(line, "case %d %d %d %lf %lf %lf %lf %lf %lf %d %15s %u", &r->number, &lower, &upper,
               &per, &up, &down, &up_delay, &down_delay, &zero_delay, &gang, policy, &target);
    ck_assert_msg(n == 12, "%s", line);
    rs_autoscale_fini(&r->a);
    r->conf = (struct rs_autoscaling_conf){
        .min_replicas = lower,
        .max_replicas = upper,
        .target_ongoing_requests = per,
        .look_back_period = 1, /* the load is that of now */
        .upscaling_factor = up,
        .downscaling_factor = down,
        .upscale_delay = ns(up_delay),
        .downscale_delay = ns(down_delay),
        .downscale_to_zero_delay = ns(zero_delay < 0 ? down_delay : zero_delay),
        .aggregation_function = "mean",
    };
    r->facts = (struct rs_autoscale_facts){
        .lower = lower,
        .upper = upper,
        .gang = gang,
        .has_policy = strcmp(policy, "custom") == 0,
        .policy_wants = -1,
    };
    rs_autoscale_start(&r->a, target, r->now);
}

static void step(struct replay *r, const char *line)
{
    double total;
    unsigned ms, want, before = r->a.target;
    char wants[32];
    int n = sscanf(line, "step %u %u %lf %31s %u", &ms, &r->facts.running, &total, wants, &want);

    ck_assert_msg(n == 5, "%s", line);
    r->now += ms * RS_MS;
    /* Ray's number is a sum of averages; a moment before is enough to have the whole window of it. */
    rs_autoscale_load(&r->a, 0, total, r->now - 2);
    r->facts.policy_wants = strcmp(wants, "-") == 0 ? -1 : strtod(wants, NULL);
    (void)rs_autoscale_decide(&r->a, &r->conf, &r->facts, r->now);
    ck_assert_msg(r->a.target == want, "case %d, %s%u replicas, not %u", r->number, line,
                  r->a.target, want);
    r->steps++;
    r->moves += want != before;
}

START_TEST(same_as_ray)
{
    static struct replay r;
    char path[4096], line[256];
    FILE *f;

    r.now = 100 * RS_SEC;
    snprintf(path, sizeof(path), "%s/testdata/autoscale/decisions.txt", getenv("RSERVE_SOURCE"));
    f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "case", 4) == 0)
            begin(&r, line);
        else if (*line != '#')
            step(&r, line);
    fclose(f);
    rs_autoscale_fini(&r.a);
    ck_assert_uint_gt(r.steps, 2000); /* the whole table */
    ck_assert_uint_gt(r.moves, 200);
}
END_TEST

RS_CHECK_MAIN("autoscale_ray", tcase_add_test(tc, same_as_ray);)
