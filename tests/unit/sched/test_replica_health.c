/* Controller and agent with replicas that fall ill or wear out: who gets fewer requests, who goes and
 * when, and what is told of it. Figures are fed as a data plane would; nothing sleeps.
 */
#include "core/base/json.h"
#include "sched/health.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

enum { MOST = 64 };
#define EVERY (500 * RS_MS)
#define D "applications.x.deployments.A"
#define A_OF(n, more)                                                                              \
    "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"                         \
    "  deployments:\n  - {name: A, num_replicas: " n                                               \
    ", ray_actor_options: {num_cpus: 1}, rserve: {" more "}}\n"

/* What the data plane would tell of a replica. */
struct figures {
    char id[16];
    bool stuck;   /* it has a request, and nothing comes of it */
    int64_t took; /* how long each of its requests takes */
    uint64_t moved;
    uint64_t buckets[RS_TALLY_BUCKETS];
};

static struct world w;
static struct behaviour a;
static struct figures all[MOST];
static size_t n_all;
static unsigned least;   /* replicas that took requests, fewest since */
static unsigned highest; /* processes, most since */

static void open_with(const char *yaml, const char *cpus)
{
    a = (struct behaviour){.deployment = "A"};
    n_all = 0;
    world_open(&w, &a, 1);
    world_join(&w, 0, cpus);
    world_apply(&w, yaml);
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
    least = MOST;
    highest = 0;
}

static void teardown(void)
{
    world_close(&w);
}

static struct figures *of(const char *id)
{
    for (size_t i = 0; i < n_all; i++)
        if (strcmp(all[i].id, id) == 0)
            return &all[i];
    ck_assert_uint_lt(n_all, MOST);
    all[n_all] = (struct figures){.took = 20 * RS_MS};
    snprintf(all[n_all].id, sizeof(all[n_all].id), "%s", id);
    return &all[n_all++];
}

/* The id of the k-th replica that takes requests; NULL: there are fewer. */
static const char *up(size_t k)
{
    const struct rs_map *procs = &w.nodes[0].procs;

    for (size_t i = 0; i < rs_map_slots(procs); i++) {
        const char *id = NULL;
        const struct proc *p = rs_map_at(procs, i, &id);

        if (p && p->admitted && strcmp(p->deployment, "A") == 0 && k-- == 0)
            return id;
    }
    return NULL;
}

/* 20 requests in each half second, but of those that are stuck, or get none. */
static void sample_one(const char *id)
{
    struct figures *f = of(id);
    unsigned spare = world_proc(&w, id)->spare, n = spare < 100 ? (100 - spare) / 5 : 1;

    if (!f->stuck) {
        f->moved += n;
        f->buckets[rs_tally_bucket(f->took)] += n;
    }
    rs_agent_sample(
        w.nodes[0].agent, id,
        &(struct rs_health_sample){
            .in_flight = f->stuck ? 3 : 1, .moved = f->moved, .done = f->moved, .took = f->buckets},
        w.now);
}

static void serve(int64_t ns)
{
    for (int64_t until = w.now + ns; w.now < until;) {
        const char *id;

        for (size_t k = 0; (id = up(k)); k++)
            sample_one(id);
        rs_agent_sampled(w.nodes[0].agent, w.now);
        world_run(&w, EVERY);
        least = world_admitted(&w, "A") < least ? world_admitted(&w, "A") : least;
        highest = world_processes(&w) > highest ? world_processes(&w) : highest;
    }
}

static bool runs(const char *id)
{
    const struct proc *p = world_proc(&w, id);

    return p && p->admitted;
}

static const json_t *find(const char *list, const char *id)
{
    rs_auto(rs_freep) char *path = rs_asprintf(D ".%s", list);

    for (size_t i = 0; i < world_size(&w, path); i++) {
        rs_auto(rs_freep) char *at = rs_asprintf(D ".%s.%zu.replica_id", list, i);
        rs_auto(rs_freep) char *health = rs_asprintf(D ".%s.%zu.rserve.health", list, i);

        if (strcmp(world_text(&w, at), id) == 0)
            return world_json(&w, health);
    }
    return NULL;
}

static const char *condition(const char *list, const char *id)
{
    return rs_json_str(find(list, id), "condition", "well");
}

/* --- stuck --- */

START_TEST(stuck_beside_others)
{
    char id[16];

    open_with(A_OF("3", "health: {stuck_after_s: 20}"), "{\"CPU\": 8}");
    serve(5 * RS_SEC);
    snprintf(id, sizeof(id), "%s", up(0));
    of(id)->stuck = true;
    serve(8 * RS_SEC);
    ck_assert_uint_eq(world_proc(&w, id)->spare, 0);
    serve(4 * RS_SEC); /* half of the limit: others take what comes */
    ck_assert_uint_eq(world_proc(&w, id)->spare, 100);
    ck_assert_str_eq(condition("replicas", id), "stuck");
    ck_assert_str_eq(rs_json_str(find("replicas", id), "action", ""), "spare");
    ck_assert_int_eq(rs_json_int(find("replicas", id), "waiting", 0), 3);
    ck_assert_ptr_nonnull(strstr(w.log, "STUCK"));
    of(id)->stuck = false; /* it was at work after all */
    serve(2 * RS_SEC);
    ck_assert_uint_eq(world_proc(&w, id)->spare, 0);
    ck_assert_str_eq(condition("replicas", id), "well");
    of(id)->stuck = true;
    serve(22 * RS_SEC);
    ck_assert(!runs(id));
    serve(25 * RS_SEC);
    ck_assert_str_eq(condition("recent_dead_replicas", id), "stuck");
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    ck_assert_uint_ge(least, 2);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
    ck_assert_int_eq(world_int(&w, D ".rserve.deaths"), 1);
}
END_TEST

/* A database is away: nobody answers. They go one by one, and each time it takes twice as long. */
START_TEST(all_are_stuck)
{
    unsigned deaths = 0;

    open_with(A_OF("4", "health: {stuck_after_s: 20}"), "{\"CPU\": 8}");
    serve(5 * RS_SEC);
    for (int i = 0; i < 240; i++) {
        const char *id;

        for (size_t k = 0; (id = up(k)); k++)
            of(id)->stuck = true;
        serve(EVERY);
        ck_assert_uint_ge(world_admitted(&w, "A"), 3);
    }
    deaths = (unsigned)world_int(&w, D ".rserve.deaths");
    ck_assert_uint_ge(deaths, 1);
    ck_assert_uint_le(deaths, 3); /* after 20 s, 40 s, 80 s */
}
END_TEST

START_TEST(the_only_one)
{
    char id[16];

    open_with(A_OF("1", "health: {stuck_after_s: 20}"), "{\"CPU\": 8}");
    serve(5 * RS_SEC);
    snprintf(id, sizeof(id), "%s", up(0));
    of(id)->stuck = true;
    serve(15 * RS_SEC);
    ck_assert_uint_eq(world_proc(&w, id)->spare, 0); /* nobody else could take its requests */
    ck_assert_str_eq(condition("replicas", id), "stuck");
    serve(40 * RS_SEC);
    ck_assert(!runs(id));
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

static const char *const lenient[] = {
    A_OF("2", "health: {stuck_factor: 0, stuck_after_s: 1}"),
    A_OF("2", "health: {stuck_after_s: 1, stuck_min_requests: 1000000}"),
    A_OF("2", "health: {stuck_after_s: 1}, request_timeout_s: 600"),
    A_OF("2", "health: {stuck_after_s: 1, max_ejected_percent: 0}"),
    A_OF("2", "health: {stuck_after_s: 1000}"),
};

START_TEST(not_judged)
{
    char id[16];

    open_with(lenient[_i], "{\"CPU\": 8}");
    serve(5 * RS_SEC);
    snprintf(id, sizeof(id), "%s", up(0));
    of(id)->stuck = true;
    serve(120 * RS_SEC);
    ck_assert(runs(id));
    ck_assert_uint_eq(world_proc(&w, id)->spare, 0);
    ck_assert_int_eq(world_int(&w, D ".rserve.deaths"), 0);
}
END_TEST

/* reconfigure takes long, and its requests wait for it. */
START_TEST(tuned)
{
    char id[16];

    open_with(A_OF("1", "health: {stuck_after_s: 20}"), "{\"CPU\": 8}");
    serve(5 * RS_SEC);
    snprintf(id, sizeof(id), "%s", up(0));
    a.tune = 100 * RS_SEC;
    world_apply(&w, "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"
                    "  deployments:\n  - {name: A, num_replicas: 1, user_config: {a: 1}, "
                    "ray_actor_options: {num_cpus: 1}, rserve: {health: {stuck_after_s: 20}}}\n");
    of(id)->stuck = true;
    serve(90 * RS_SEC);
    ck_assert(runs(id));
    serve(40 * RS_SEC); /* it is through, and they still do not move */
    ck_assert(!runs(id));
}
END_TEST

/* --- not answering --- */

START_TEST(silent)
{
    char id[16];

    open_with("applications:\n- name: x\n  import_path: m:app\n  deployments:\n  - {name: A, "
              "num_replicas: 2, health_check_period_s: 1, health_check_timeout_s: 8, "
              "rserve: {health: {not_answering_s: 30}}}\n",
              "{\"CPU\": 8}");
    world_run(&w, 3 * RS_SEC);
    snprintf(id, sizeof(id), "%s", up(0));
    a.deaf = true; /* both of them: but one must take the requests */
    world_proc(&w, id)->stopped = true;
    world_run(&w, 5 * RS_SEC);
    ck_assert_uint_eq(world_proc(&w, up(0))->spare + world_proc(&w, up(1))->spare, 100);
    ck_assert_str_eq(condition("replicas", id), "not_answering");
    ck_assert_str_eq(rs_json_str(find("replicas", id), "process_state", ""), "T");
    a.deaf = false;
    world_run(&w, 6 * RS_SEC); /* the next question is answered */
    ck_assert_str_eq(condition("replicas", id), "well");
    ck_assert_uint_eq(world_proc(&w, id)->spare, 0);
    a.deaf = true;
    world_run(&w, 45 * RS_SEC);
    ck_assert(!runs(id));
    a.deaf = false;
    ck_assert_str_eq(condition("recent_dead_replicas", id), "not_answering");
    ck_assert_str_eq(rs_json_str(find("recent_dead_replicas", id), "action", ""), "kill");
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

/* --- slow --- */

START_TEST(slow)
{
    char id[16];

    open_with(A_OF("5", "health: {slow_window_s: 5, slow_replace_after_s: 60}"), "{\"CPU\": 8}");
    serve(20 * RS_SEC);
    snprintf(id, sizeof(id), "%s", up(0));
    of(id)->took = 300 * RS_MS;
    serve(25 * RS_SEC);
    ck_assert_str_eq(condition("replicas", id), "slow");
    ck_assert_uint_eq(world_proc(&w, id)->spare, 90);
    ck_assert_int_eq(rs_json_int(find("replicas", id), "siblings", 0), 4);
    of(id)->took = 20 * RS_MS;
    serve(25 * RS_SEC);
    ck_assert_str_eq(condition("replicas", id), "well");
    ck_assert_uint_eq(world_proc(&w, id)->spare, 0);
    of(id)->took = 300 * RS_MS;
    least = 5;
    serve(120 * RS_SEC);
    ck_assert(!runs(id));
    ck_assert_uint_eq(least, 5); /* the new one came first */
    ck_assert_uint_eq(world_admitted(&w, "A"), 5);
    ck_assert_int_eq(world_int(&w, D ".rserve.deaths"), 0);
    ck_assert_str_eq(condition("recent_dead_replicas", id), "slow");
}
END_TEST

/* --- the leak guard --- */

static void leak(uint64_t to)
{
    const char *id;

    for (size_t k = 0; (id = up(k)); k++) {
        struct proc *p = world_proc(&w, id);

        p->memory = of(id)->moved > 100 ? to : 100 << 20;
    }
}

START_TEST(memory_growth)
{
    char before[3][16];

    open_with(A_OF("3", "replace: {memory_growth: 100MiB}"), "{\"CPU\": 8}");
    for (int k = 0; k < 3; k++)
        snprintf(before[k], sizeof(before[k]), "%s", up((size_t)k));
    leak(100 << 20);
    serve(70 * RS_SEC); /* what they have then is what they need */
    least = 3;
    for (int i = 0; i < 60; i++) {
        leak(250 << 20);
        serve(RS_SEC);
        ck_assert_uint_le(highest, 4 + 1); /* one more, and one that goes */
    }
    for (int k = 0; k < 3; k++) {
        ck_assert(!runs(before[k]));
        ck_assert_str_eq(condition("recent_dead_replicas", before[k]), "memory_growth");
    }
    ck_assert_uint_eq(least, 3);
    ck_assert_ptr_nonnull(strstr(w.log, "MEMORY"));
    ck_assert_int_eq(world_int(&w, D ".rserve.deaths"), 0);
}
END_TEST

START_TEST(age_one_by_one)
{
    open_with(A_OF("4", "replace: {age_s: 100}"), "{\"CPU\": 8}");
    world_run(&w, 80 * RS_SEC);
    ck_assert_uint_eq(a.inits, 4);
    a.start = 3 * RS_SEC;
    least = 4;
    for (int i = 0; i < 60; i++) {
        world_run(&w, RS_SEC);
        least = world_admitted(&w, "A") < least ? world_admitted(&w, "A") : least;
        ck_assert_uint_le(world_processes(&w), 6);
    }
    ck_assert_uint_eq(least, 4);
    ck_assert_uint_eq(a.inits, 8);
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
}
END_TEST

/* The new one does not come up: the old one stays. */
START_TEST(a_new_one_that_fails)
{
    open_with(A_OF("1", "replace: {age_s: 10}"), "{\"CPU\": 8}");
    a.fail_starts = 3;
    least = 1;
    for (int i = 0; i < 60; i++) {
        world_run(&w, RS_SEC / 2);
        least = world_admitted(&w, "A") < least ? world_admitted(&w, "A") : least;
    }
    ck_assert_uint_eq(least, 1);
    ck_assert_uint_ge(a.inits, 5);
}
END_TEST

START_TEST(no_room)
{
    char id[16];

    open_with(A_OF("2", "replace: {age_s: 10}"), "{\"CPU\": 2}");
    snprintf(id, sizeof(id), "%s", up(0));
    a.start = 2 * RS_SEC;
    least = 2;
    for (int i = 0; i < 40; i++) {
        world_run(&w, RS_SEC / 2);
        least = world_admitted(&w, "A") < least ? world_admitted(&w, "A") : least;
    }
    ck_assert(!runs(id));
    ck_assert_uint_eq(least, 1);               /* never both */
    ck_assert_uint_eq(world_processes(&w), 3); /* two, and their zygote */
    ck_assert_ptr_nonnull(
        strstr(world_text(&w, D ".recent_dead_replicas.0.rserve.message"), "there is no room"));
}
END_TEST

/* --- ends --- */

START_TEST(out_of_memory)
{
    open_with(A_OF("2", ""), "{\"CPU\": 8}");
    w.oom = 1;
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(world_text(&w, D ".recent_dead_replicas.0.rserve.health.condition"),
                     "out_of_memory");
    ck_assert_ptr_nonnull(strstr(world_text(&w, D ".recent_dead_replicas.0.rserve.message"),
                                 "out of memory: the kernel said so"));
    ck_assert_ptr_nonnull(strstr(w.log, "OOM"));
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 2 * RS_SEC);
    ck_assert_str_eq(world_text(&w, D ".recent_dead_replicas.1.rserve.health.condition"), "dead");
    ck_assert_int_eq(world_int(&w, D ".recent_dead_replicas.1.rserve.health.signal"), SIGKILL);
}
END_TEST

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* Whatever happens to them: it ends well when it ends, and there was always somebody. */
START_TEST(anything)
{
    uint64_t x = 88172645463325252u + (uint64_t)_i * 7919;

    open_with(A_OF("5", "health: {stuck_after_s: 5, slow_window_s: 2, slow_replace_after_s: 10}, "
                        "replace: {requests: 3000, age_s: 40, memory: 200MiB}"),
              next(&x) % 2 ? "{\"CPU\": 8}" : "{\"CPU\": 5}");
    for (int i = 0; i < 100; i++) {
        const char *id = up(next(&x) % 5);
        struct figures *f = id ? of(id) : NULL;

        if (n_all > MOST - 8)
            break;
        if (f && next(&x) % 4 == 0)
            f->stuck = !f->stuck;
        if (f && next(&x) % 4 == 0)
            f->took = (int64_t)(1 + next(&x) % 500) * RS_MS;
        if (f && next(&x) % 16 == 0)
            world_proc(&w, id)->memory = 300 << 20;
        a.deaf = next(&x) % 8 == 0;
        if (next(&x) % 16 == 0)
            (void)world_kill_one(&w, "A");
        serve((int64_t)(next(&x) % 4) * EVERY);
        ck_assert_uint_le(world_admitted(&w, "A"), 6);
    }
    a.deaf = false;
    for (size_t i = 0; i < n_all; i++)
        all[i].stuck = false;
    w.oom = 0;
    world_run(&w, 35 * RS_SEC);
    ck_assert_uint_ge(world_admitted(&w, "A"), 4);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

RS_CHECK_MAIN("replica health", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, stuck_beside_others); tcase_add_test(tc, all_are_stuck);
              tcase_add_test(tc, the_only_one);
              tcase_add_loop_test(tc, not_judged, 0, RS_COUNT(lenient)); tcase_add_test(tc, tuned);
              tcase_add_test(tc, silent); tcase_add_test(tc, slow);
              tcase_add_test(tc, memory_growth); tcase_add_test(tc, age_one_by_one);
              tcase_add_test(tc, a_new_one_that_fails); tcase_add_test(tc, no_room);
              tcase_add_test(tc, out_of_memory); tcase_add_loop_test(tc, anything, 0, 20);)
