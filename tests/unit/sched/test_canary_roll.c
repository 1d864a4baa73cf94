/* A canary in the whole head: what nodes are told, what they count, and what follows. */
#include "core/base/json.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;
static struct behaviour behaviours[] = {{.deployment = "A", .start = 50 * RS_MS}};

#define A "applications.x.deployments.A."
#define ROLL A "rserve.rollout."

static char *yaml_of(const char *version, const char *rollout)
{
    return rs_asprintf(
        "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"
        "  deployments:\n  - name: A\n    num_replicas: 4\n"
        "    ray_actor_options: {num_cpus: 0.5, runtime_env: {env_vars: {V: \"%s\"}}}\n"
        "    rserve: {rollout: %s}\n",
        version, rollout);
}

static void deploy(const char *version, const char *rollout)
{
    rs_auto(rs_freep) char *yaml = yaml_of(version, rollout);

    world_apply(&w, yaml);
}

#define CANARY "{canary: {steps: [10%, 50%], each: 10s, min_requests: 20, max_p99_ratio: 3}}"

static void begin_with(const char *rollout)
{
    world_open(&w, behaviours, RS_COUNT(behaviours));
    world_join(&w, 0, "{\"CPU\": 8}");
    deploy("1", rollout);
    world_run(&w, RS_SEC);
    ck_assert_str_eq(world_text(&w, A "status"), "HEALTHY");
    ck_assert_str_eq(w.nodes[0].split, ""); /* one version: nothing to tell apart */
}

static void teardown(void)
{
    world_close(&w);
}

/* A second of `rate` requests, by the share that the routers were told; of the new version's, `failed`
 * of a hundred fail and take so long. */
static void serve(unsigned rate, unsigned failed, int64_t took)
{
    double share = w.nodes[0].share < 0 ? 0.5 : w.nodes[0].share;
    unsigned fresh = (unsigned)(rate * share + 0.5);

    world_served(&w, 0, false, rate - fresh, 0, 10 * RS_MS);
    if (fresh)
        world_served(&w, 0, true, fresh, fresh * failed / 100, took);
    world_run(&w, RS_SEC);
}

static unsigned up(bool fresh)
{
    return (unsigned)world_int(&w, fresh ? ROLL "new_up" : ROLL "old_up");
}

/* Never a larger part of the requests than of the replicas that are up; never fewer than are wanted. */
static void check_capacity(void)
{
    double share = w.nodes[0].share;

    ck_assert_uint_ge(world_admitted(&w, "A"), 4);
    if (share > 0 && *w.nodes[0].split)
        ck_assert_double_le(share, (double)up(true) / (up(true) + up(false)) + 1e-6);
}

START_TEST(step_by_step)
{
    double last = 0;

    begin_with(CANARY);
    deploy("2", CANARY);
    for (int i = 0; i < 60 && !strstr(w.canary, "PASSED"); i++) {
        serve(100, 0, 10 * RS_MS);
        check_capacity();
        if (*w.nodes[0].split) {
            ck_assert_double_ge(w.nodes[0].share, last);
            last = w.nodes[0].share;
        }
    }
    ck_assert_str_eq(w.canary, "STARTED 0% 10%\nSTEP 10% 50%\nPASSED 50% 100%\n");
    world_run(&w, 5 * RS_SEC);
    ck_assert_str_eq(world_text(&w, A "status"), "HEALTHY");
    ck_assert_str_eq(world_text(&w, ROLL "phase"), "done");
    ck_assert_str_eq(w.nodes[0].split, "");
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
}
END_TEST

/* Before the share is 10 % nothing goes to the new version, however many of it are up. */
START_TEST(a_step_lasts_from_its_share)
{
    begin_with(CANARY);
    behaviours[0].start = 30 * RS_SEC;
    deploy("2", CANARY);
    world_run(&w, RS_SEC);
    ck_assert_str_eq(w.nodes[0].split, "A");
    ck_assert_double_eq(w.nodes[0].share, 0);
    ck_assert_str_eq(w.canary, "");
    world_run(&w, 30 * RS_SEC);
    ck_assert_double_eq_tol(w.nodes[0].share, 0.1, 1e-9);
    ck_assert_str_eq(w.canary, "STARTED 0% 10%\n");
    behaviours[0].start = 50 * RS_MS;
}
END_TEST

static const struct {
    unsigned failed;
    int64_t took;
    const char *says;
} harms[] = {
    {30, 10 * RS_MS, "fails more often than the old one"},
    {0, 100 * RS_MS, "is slower than it may be"},
};

START_TEST(harm)
{
    begin_with(CANARY);
    for (int i = 0; i < 3; i++)
        serve(100, 0, 10 * RS_MS);
    deploy("2", CANARY);
    for (int i = 0; i < 30 && !strstr(w.canary, "FAILED"); i++) {
        serve(100, harms[_i].failed, harms[_i].took);
        check_capacity();
    }
    ck_assert_ptr_eq(strstr(w.canary, "STARTED 0% 10%\nFAILED 10% 0%\n"), w.canary);
    world_run(&w, 100 * RS_MS);
    ck_assert(w.nodes[0].share <= 0); /* at once, while its replicas still go */
    world_run(&w, 10 * RS_SEC);
    ck_assert_ptr_nonnull(strstr(w.canary, "ROLLED_BACK"));
    ck_assert_str_eq(w.nodes[0].split, "");
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_uint_eq(up(true), 0);
    ck_assert_ptr_nonnull(strstr(world_text(&w, A "message"), harms[_i].says));
    ck_assert_ptr_nonnull(strstr(world_text(&w, A "message"), "old version: "));
    /* It stays so; the next version gets its chance. */
    world_run(&w, 600 * RS_SEC);
    ck_assert_uint_eq(up(true), 0);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    w.canary[0] = '\0';
    deploy("3", CANARY);
    for (int i = 0; i < 60 && !strstr(w.canary, "PASSED"); i++)
        serve(100, 0, 10 * RS_MS);
    ck_assert_str_eq(w.canary, "STARTED 0% 10%\nSTEP 10% 50%\nPASSED 50% 100%\n");
}
END_TEST

/* Nobody asks it anything: the step goes on, and says why. */
START_TEST(too_few)
{
    begin_with(CANARY);
    deploy("2", CANARY);
    world_run(&w, 120 * RS_SEC);
    ck_assert_str_eq(w.canary, "STARTED 0% 10%\n");
    ck_assert_str_eq(world_text(&w, A "rserve.canary.why"), "too_few_requests");
    ck_assert_str_eq(world_text(&w, A "message"),
                     "The new version is on trial (step 1 of 2, 10% of the requests, from 1 "
                     "replica), and has had too few requests so far.");
    for (int i = 0; i < 60 && !strstr(w.canary, "PASSED"); i++)
        serve(100, 0, 10 * RS_MS);
    ck_assert_ptr_nonnull(strstr(w.canary, "PASSED"));
}
END_TEST

/* One death is no proof; the version that does not stay up is rolled back. */
START_TEST(deaths)
{
    begin_with(CANARY);
    deploy("2", CANARY);
    for (int i = 0; i < 3; i++)
        serve(100, 0, 10 * RS_MS);
    w.nodes[0].tally[1].deaths++;
    for (int i = 0; i < 3; i++)
        serve(100, 0, 10 * RS_MS);
    ck_assert_ptr_null(strstr(w.canary, "FAILED"));
    w.nodes[0].tally[1].deaths += 5;
    for (int i = 0; i < 2; i++)
        serve(100, 0, 10 * RS_MS);
    ck_assert_ptr_nonnull(strstr(w.canary, "FAILED"));
}
END_TEST

/* What two nodes count is one sum, and each is told the same share, and what the other has of each
 * version. */
START_TEST(two_nodes)
{
    begin_with(CANARY);
    world_join(&w, 1, "{\"CPU\": 8}");
    world_run(&w, RS_SEC);
    deploy("2", CANARY);
    world_run(&w, 2 * RS_SEC);
    ck_assert_double_eq_tol(w.nodes[0].share, 0.1, 1e-9);
    ck_assert_double_eq_tol(w.nodes[1].share, 0.1, 1e-9);
    for (int i = 0; i < 12; i++) {
        world_served(&w, 0, false, 45, 0, RS_MS);
        world_served(&w, 0, true, 1, 0, RS_MS);
        world_served(&w, 1, false, 45, 0, RS_MS);
        world_served(&w, 1, true, 1, 0, RS_MS);
        world_run(&w, RS_SEC);
    }
    ck_assert_str_eq(w.canary, "STARTED 0% 10%\nSTEP 10% 50%\n"); /* 20 of both together */
    ck_assert_int_eq(world_int(&w, A "rserve.canary.step"), 2);
}
END_TEST

/* The head is killed in the second step: the next one goes on there. */
START_TEST(another_head)
{
    rs_auto(rs_json_decrefp) json_t *desired = NULL;

    begin_with(CANARY);
    deploy("2", CANARY);
    for (int i = 0; i < 40 && !strstr(w.canary, "STEP"); i++)
        serve(100, 0, 10 * RS_MS);
    world_run(&w, 2 * RS_SEC);
    ck_assert_double_eq_tol(w.nodes[0].share, 0.5, 1e-9);
    desired = rs_controller_desired(w.controller);
    world_new_head(&w);
    rs_controller_restore_rolls(w.controller, json_object_get(desired, "rolls"));
    deploy("2", CANARY);
    world_join(&w, 0, "{\"CPU\": 8}");
    for (int i = 0; i < 40 && !strstr(w.canary, "PASSED"); i++) {
        serve(100, 0, 10 * RS_MS);
        ck_assert(w.nodes[0].share >= 0.5 - 1e-9 || strstr(w.canary, "PASSED"));
        ck_assert_uint_ge(world_admitted(&w, "A"), 4);
    }
    ck_assert_ptr_nonnull(strstr(w.canary, "PASSED 50% 100%"));
}
END_TEST

/* And one that came to harm is not tried again by the next head. */
START_TEST(another_head_knows_of_harm)
{
    rs_auto(rs_json_decrefp) json_t *desired = NULL;

    begin_with(CANARY);
    deploy("2", CANARY);
    for (int i = 0; i < 30 && !strstr(w.canary, "FAILED"); i++)
        serve(100, 50, 10 * RS_MS);
    world_run(&w, 10 * RS_SEC);
    desired = rs_controller_desired(w.controller);
    w.canary[0] = '\0';
    world_new_head(&w);
    rs_controller_restore_rolls(w.controller, json_object_get(desired, "rolls"));
    deploy("2", CANARY);
    world_join(&w, 0, "{\"CPU\": 8}");
    world_run(&w, 60 * RS_SEC);
    ck_assert_str_eq(w.canary, "");
    ck_assert_uint_eq(up(true), 0);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
}
END_TEST

#define ANALYSIS "{pause_after: 1, analysis: {min_requests: 50}}"

START_TEST(analysis)
{
    begin_with(ANALYSIS);
    deploy("2", ANALYSIS);
    for (int i = 0; i < 20 && !strstr(w.canary, "PASSED"); i++) {
        serve(20, 0, 10 * RS_MS);
        ck_assert_double_lt(w.nodes[0].share, 0);
    }
    ck_assert_ptr_nonnull(strstr(w.canary, "PASSED"));
    world_run(&w, 5 * RS_SEC);
    ck_assert_str_eq(world_text(&w, ROLL "phase"), "done");
    w.canary[0] = '\0';
    deploy("3", ANALYSIS);
    for (int i = 0; i < 20 && !strstr(w.canary, "FAILED"); i++)
        serve(20, 60, 10 * RS_MS);
    ck_assert_ptr_nonnull(strstr(w.canary, "FAILED"));
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(up(true), 0);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
}
END_TEST

RS_CHECK_MAIN("canary_roll", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, step_by_step); tcase_add_test(tc, a_step_lasts_from_its_share);
              tcase_add_loop_test(tc, harm, 0, RS_COUNT(harms)); tcase_add_test(tc, too_few);
              tcase_add_test(tc, deaths); tcase_add_test(tc, two_nodes);
              tcase_add_test(tc, another_head); tcase_add_test(tc, another_head_knows_of_harm);
              tcase_add_test(tc, analysis);)
