/* Actors, tasks and placement groups: what processes ask, what runs then, and what they are told. */
#include "core/base/json.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;

#define APP                                                                                        \
    "applications:\n- name: x\n  import_path: m:app\n  deployments:\n"                             \
    "  - {name: A, ray_actor_options: {num_cpus: 0}}\n"
#define ACTOR(id, more)                                                                            \
    "{\"op\": \"create_actor\", \"actor_id\": \"" id "\", \"class_name\": \"C\", \"namespace\": "  \
    "\"n\", \"spec\": \"c3BlYw==\", \"env\": {\"app\": \"x\"}, \"meta\": {}" more "}"
#define CPUS(n) ", \"options\": {\"num_cpus\": " #n "}"
#define INFO(id) "{\"op\": \"actor_info\", \"actor_id\": \"" id "\"}"
#define POOL(key, cpus)                                                                            \
    "{\"op\": \"pool\", \"key\": \"" key "\", \"env\": {\"app\": \"x\"}, \"options\": "            \
    "{\"num_cpus\": " #cpus "}}"
#define DEMAND(key, n) "{\"op\": \"demand\", \"deployment\": \"" key "\", \"n\": " #n "}"

static const char *told(const char *key)
{
    const json_t *v = json_object_get(w.answer, key);

    return json_is_string(v) ? json_string_value(v) : "";
}

static void open_with(struct behaviour *b, size_t n, const char *resources)
{
    world_open(&w, b, n);
    world_join(&w, 0, resources);
    world_apply(&w, APP);
    world_run(&w, RS_SEC);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}

static void teardown(void)
{
    world_close(&w);
}

static void check_state(const char *id_question, const char *state)
{
    world_ask(&w, 0, "p1", id_question);
    ck_assert_msg(strcmp(told("state"), state) == 0, "%s, not %s: %s", told("state"), state,
                  told("cause"));
}

static double free_cpus(void)
{
    world_ask(&w, 0, "p1", "{\"op\": \"resources\"}");
    return rs_json_num(json_object_get(w.answer, "available"), "CPU", 0);
}

/* --- actors --- */

START_TEST(life)
{
    struct behaviour b[] = {{.deployment = "a1"}};
    unsigned zygotes;

    open_with(b, 1, "{\"CPU\": 2}");
    zygotes = w.zygotes;
    world_ask(&w, 0, "p1", ACTOR("a1", CPUS(1)));
    ck_assert_ptr_nonnull(strstr(told("app"), "ray:x@"));
    ck_assert_str_eq(told("state"), "PENDING_CREATION");
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "ALIVE");
    ck_assert_uint_eq(world_admitted(&w, "a1"), 1);
    ck_assert_uint_eq(w.zygotes, zygotes); /* forked from the application's own */
    ck_assert(free_cpus() == 1);
    ck_assert_uint_eq(world_size(&w, "applications"), 1); /* it is no application of Serve */
    world_ask(&w, 0, "a1-process", "{\"op\": \"spec\", \"actor_id\": \"a1\"}");
    ck_assert_str_eq(told("spec"), "c3BlYw==");
    world_ask(&w, 0, "p1", "{\"op\": \"kill_actor\", \"actor_id\": \"a1\", \"no_restart\": true}");
    check_state(INFO("a1"), "DEAD");
    ck_assert_ptr_nonnull(strstr(told("cause"), "ray.kill"));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "a1"), 0);
    ck_assert(free_cpus() == 2);
    world_ask(&w, 0, "p2", "{\"op\": \"spec\", \"actor_id\": \"a1\"}");
    ck_assert_str_eq(told("kind"), "RuntimeError");
}
END_TEST

START_TEST(constructor_fails)
{
    struct behaviour b[] = {{.deployment = "a1", .fail_starts = 100}};

    open_with(b, 1, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", ACTOR("a1", ", \"max_restarts\": 5"));
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "DEAD");
    ck_assert_ptr_nonnull(strstr(told("cause"), "ValueError: no"));
    ck_assert(json_is_true(json_object_get(w.answer, "by_constructor")));
    ck_assert_uint_eq(b[0].inits, 1); /* the next one would fail as well */
}
END_TEST

START_TEST(restarts)
{
    struct behaviour b[] = {{.deployment = "a1"}};

    open_with(b, 1, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", ACTOR("a1", ", \"max_restarts\": 2"));
    world_run(&w, RS_SEC);
    ck_assert(world_kill_one(&w, "a1"));
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "ALIVE");
    ck_assert_int_eq(rs_json_int(w.answer, "num_restarts", 0), 1);
    world_ask(&w, 0, "p1", "{\"op\": \"kill_actor\", \"actor_id\": \"a1\", \"no_restart\": false}");
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "ALIVE");
    ck_assert_int_eq(rs_json_int(w.answer, "num_restarts", 0), 2);
    ck_assert(world_kill_one(&w, "a1"));
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "DEAD");
    ck_assert_uint_eq(b[0].inits, 3);
    world_run(&w, 60 * RS_SEC);
    ck_assert_uint_eq(b[0].inits, 3);
}
END_TEST

START_TEST(without_restarts)
{
    struct behaviour b[] = {{.deployment = "a1"}};

    open_with(b, 1, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", ACTOR("a1", ""));
    world_run(&w, RS_SEC);
    ck_assert(world_kill_one(&w, "a1"));
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "DEAD");
    ck_assert_uint_eq(b[0].inits, 1);
}
END_TEST

START_TEST(names)
{
    open_with(NULL, 0, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", ACTOR("a1", ", \"name\": \"bob\""));
    world_ask(&w, 0, "p2", ACTOR("a2", ", \"name\": \"bob\""));
    ck_assert_str_eq(told("kind"), "ActorAlreadyExistsError");
    world_ask(&w, 0, "p2", ACTOR("a2", ", \"name\": \"bob\", \"get_if_exists\": true"));
    ck_assert_str_eq(told("actor_id"), "a1");
    ck_assert(json_is_true(json_object_get(w.answer, "existing")));
    world_ask(&w, 0, "p2", "{\"op\": \"get_actor\", \"name\": \"bob\", \"namespace\": \"n\"}");
    ck_assert_str_eq(told("actor_id"), "a1");
    world_ask(&w, 0, "p2", "{\"op\": \"get_actor\", \"name\": \"bob\", \"namespace\": \"m\"}");
    ck_assert_str_eq(told("kind"), "ValueError");
    ck_assert_ptr_nonnull(strstr(told("error"), "Failed to look up actor with name 'bob'"));
    world_ask(&w, 0, "p1", "{\"op\": \"exit_actor\", \"actor_id\": \"a1\"}");
    world_ask(&w, 0, "p2", ACTOR("a3", ", \"name\": \"bob\""));
    ck_assert_str_eq(told("actor_id"), "a3");
}
END_TEST

START_TEST(owners_and_handles)
{
    open_with(NULL, 0, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", ACTOR("a1", ""));
    world_ask(&w, 0, "p1", ACTOR("a2", ", \"lifetime\": \"detached\""));
    world_ask(&w, 0, "p2", ACTOR("a3", ""));
    world_ask(&w, 0, "p2", "{\"op\": \"hold\", \"actor_id\": \"a3\"}");
    world_ask(&w, 0, "p3", "{\"op\": \"hold\", \"actor_id\": \"a3\"}");
    world_ask(&w, 0, "p3", "{\"op\": \"hold\", \"actor_id\": \"a2\"}");
    world_gone(&w, 0, "p1");
    check_state(INFO("a1"), "DEAD");
    ck_assert_ptr_nonnull(strstr(told("cause"), "owner"));
    world_run(&w, RS_SEC);
    check_state(INFO("a2"), "ALIVE");
    world_ask(&w, 0, "p2", "{\"op\": \"release\", \"actor_id\": \"a3\"}");
    check_state(INFO("a3"), "ALIVE");
    world_ask(&w, 0, "p3", "{\"op\": \"release\", \"actor_id\": \"a2\"}");
    check_state(INFO("a2"), "ALIVE"); /* nobody's handle keeps a detached one, or ends it */
    world_ask(&w, 0, "p3", "{\"op\": \"release\", \"actor_id\": \"a3\"}");
    check_state(INFO("a3"), "DEAD");
    ck_assert_ptr_nonnull(strstr(told("cause"), "all references"));
}
END_TEST

START_TEST(pending_until_there_is_room)
{
    open_with(NULL, 0, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", ACTOR("a1", CPUS(2)));
    world_ask(&w, 0, "p1", ACTOR("a2", CPUS(1)));
    world_run(&w, RS_SEC);
    check_state(INFO("a2"), "PENDING_CREATION");
    ck_assert_str_eq(told("pending"), "needs 1 CPU; node has 2, 0 free");
    world_join(&w, 1, "{\"CPU\": 1}");
    world_run(&w, RS_SEC);
    check_state(INFO("a2"), "ALIVE");
    ck_assert_str_eq(told("node_id"), "n1");
    world_leave(&w, 1); /* with it */
    check_state(INFO("a2"), "DEAD");
    ck_assert_ptr_nonnull(strstr(told("cause"), "has left"));
}
END_TEST

START_TEST(node_with_a_restartable_actor_leaves)
{
    open_with(NULL, 0, "{\"CPU\": 1}");
    world_join(&w, 1, "{\"CPU\": 4}");
    world_ask(&w, 0, "p1", ACTOR("a1", CPUS(2) ", \"max_restarts\": 1"));
    world_run(&w, RS_SEC);
    world_leave(&w, 1);
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "RESTARTING");
    world_join(&w, 2, "{\"CPU\": 4}");
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "ALIVE");
    ck_assert_int_eq(rs_json_int(w.answer, "num_restarts", 0), 1);
    ck_assert(world_kill_one(&w, "a1"));
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "DEAD");
}
END_TEST

START_TEST(what_makes_no_sense)
{
    static const char *const wrong[] = {
        ACTOR("", ""),
        "{\"op\": \"create_actor\", \"actor_id\": \"z\"}",
        ACTOR("a1", ", \"options\": {\"num_cpus\": -1}"),
        ACTOR("a1", ", \"options\": {\"num_gpus\": 1.5}"),
        ACTOR("a1", ", \"strategy\": {\"group\": \"none\"}"),
        "{\"op\": \"actor_info\", \"actor_id\": \"nobody\"}",
        "{\"op\": \"kill_actor\"}",
        "{\"op\": \"pool\"}",
        "{\"op\": \"demand\", \"deployment\": \"nothing\", \"n\": 3}",
        "{\"op\": \"create_group\", \"group_id\": \"g\", \"bundles\": []}",
        "{\"op\": \"create_group\", \"group_id\": \"g\", \"bundles\": [{\"CPU\": \"x\"}]}",
        "{\"op\": \"create_group\", \"group_id\": \"g\", \"bundles\": [{\"CPU\": 1}], "
        "\"strategy\": "
        "\"ODD\"}",
        "{\"op\": \"list\", \"what\": \"everything\"}",
        "{\"op\": \"dance\"}",
        "{}",
    };

    open_with(NULL, 0, "{\"CPU\": 2}");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        world_ask(&w, 0, "p1", wrong[i]);
        ck_assert_msg(*told("error") && *told("kind"), "%s", wrong[i]);
    }
    ck_assert(free_cpus() == 2);
}
END_TEST

/* --- tasks --- */

START_TEST(workers_follow_demand)
{
    open_with(NULL, 0, "{\"CPU\": 3}");
    world_ask(&w, 0, "p1", POOL("task:1", 1));
    ck_assert_str_eq(told("deployment"), "task:1");
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 0);
    world_ask(&w, 0, "p1", DEMAND("task:1", 2));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 2);
    world_ask(&w, 0, "p2", DEMAND("task:1", 50));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 3); /* that is all there is */
    world_gone(&w, 0, "p2");
    world_run(&w, 3 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 2);
    world_ask(&w, 0, "p1", DEMAND("task:1", 0));
    world_run(&w, 3 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 1); /* one stays warm */
    world_run(&w, 70 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 0);
    world_ask(&w, 0, "p1", POOL("task:1", 1)); /* and begins anew */
    world_ask(&w, 0, "p1", DEMAND("task:1", 1));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 1);
}
END_TEST

START_TEST(idle_workers_make_room)
{
    open_with(NULL, 0, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", POOL("task:1", 1));
    world_ask(&w, 0, "p1", DEMAND("task:1", 2));
    world_run(&w, RS_SEC);
    world_ask(&w, 0, "p1", DEMAND("task:1", 0));
    world_ask(&w, 0, "p1", ACTOR("a1", CPUS(2)));
    world_run(&w, RS_SEC / 2);
    check_state(INFO("a1"), "ALIVE");
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 0);
}
END_TEST

/* One that waits lends its CPU; when it goes on, nobody is stopped for it. */
START_TEST(waiting_workers_lend_their_cpus)
{
    open_with(NULL, 0, "{\"CPU\": 1}");
    world_ask(&w, 0, "p1", POOL("task:1", 1));
    world_ask(&w, 0, "p1", DEMAND("task:1", 1));
    world_run(&w, RS_SEC);
    for (unsigned depth = 1; depth <= 3; depth++) {
        world_ask(&w, 0, "inner", DEMAND("task:1", 3));
        ck_assert_uint_eq(world_admitted(&w, "task:1"), depth);
        ck_assert(world_waits(&w, "task:1", true));
        world_run(&w, RS_SEC);
        ck_assert_uint_eq(world_admitted(&w, "task:1"), depth + 1);
    }
    while (world_waits(&w, "task:1", false))
        ;
    world_run(&w, RS_SEC / 2);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 4);
    ck_assert(free_cpus() == 0);
    world_ask(&w, 0, "p1", ACTOR("a1", CPUS(1)));
    world_run(&w, RS_SEC / 2);
    check_state(INFO("a1"), "PENDING_CREATION");
    world_gone(&w, 0, "inner");
    world_ask(&w, 0, "p1", DEMAND("task:1", 0));
    world_run(&w, 3 * RS_SEC);
    check_state(INFO("a1"), "ALIVE");
}
END_TEST

START_TEST(workers_that_die_are_replaced_at_once)
{
    open_with(NULL, 0, "{\"CPU\": 1}");
    world_ask(&w, 0, "p1", POOL("task:1", 1));
    world_ask(&w, 0, "p1", DEMAND("task:1", 1));
    world_run(&w, RS_SEC);
    for (int i = 0; i < 20; i++) {
        ck_assert_msg(world_kill_one(&w, "task:1"), "death %d", i);
        world_run(&w, RS_SEC / 2);
    }
}
END_TEST

START_TEST(workers_that_cannot_start)
{
    struct behaviour b[] = {{.deployment = "task:1", .fail_starts = 3}};

    open_with(b, 1, "{\"CPU\": 1}");
    world_ask(&w, 0, "p1", POOL("task:1", 1));
    world_ask(&w, 0, "p1", DEMAND("task:1", 1));
    world_run(&w, 10 * RS_SEC);
    world_ask(&w, 0, "p1", "{\"op\": \"pool_info\", \"deployment\": \"task:1\"}");
    ck_assert(json_is_true(json_object_get(w.answer, "failed")));
    ck_assert_ptr_nonnull(strstr(told("error"), "ValueError: no"));
    world_ask(&w, 0, "p1", POOL("task:1", 1)); /* another try */
    world_run(&w, 10 * RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "task:1"), 1);
}
END_TEST

START_TEST(cancelling_by_force)
{
    open_with(NULL, 0, "{\"CPU\": 2}");
    world_ask(&w, 0, "p1", POOL("task:1", 1));
    world_ask(&w, 0, "p1", DEMAND("task:1", 2));
    world_run(&w, RS_SEC);
    world_ask(&w, 0, "p1",
              "{\"op\": \"cancel_task\", \"deployment\": \"task:1\", \"task_id\": \"t\"}");
    ck_assert_uint_eq(w.orders, 1); /* one for the node, which tells all its workers */
}
END_TEST

/* What an actor and workers of tasks are called is told by who makes them. */
START_TEST(names_that_are_taken)
{
    open_with(NULL, 0, "{\"CPU\": 4}");
    world_ask(&w, 0, "p1", POOL("same", 1));
    world_ask(&w, 0, "p1", DEMAND("same", 1));
    world_ask(&w, 0, "p1", ACTOR("same", ""));
    ck_assert_str_eq(told("kind"), "ValueError");
    ck_assert_ptr_nonnull(strstr(told("error"), "expected a new name"));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "same"), 1);
    world_ask(&w, 0, "p1", ACTOR("a1", ""));
    world_run(&w, RS_SEC);
    world_ask(&w, 0, "p1", POOL("a1", 1));
    ck_assert_str_eq(told("kind"), "ValueError");
    check_state(INFO("a1"), "ALIVE");
    world_ask(&w, 0, "p1", "{\"op\": \"kill_actor\", \"actor_id\": \"a1\"}");
    world_run(&w, RS_SEC);
    world_ask(&w, 0, "p1", POOL("a1", 1)); /* free again */
    ck_assert_str_eq(told("deployment"), "a1");
}
END_TEST

/* All that runs is told to the nodes in one message. */
START_TEST(options_without_end)
{
    enum { LONG = 200 << 10 };
    rs_auto(rs_freep) char *text = rs_alloc(LONG + 1);

    open_with(NULL, 0, "{\"CPU\": 4}");
    memset(text, 'v', LONG);
    for (int i = 0; i < 4; i++) {
        rs_auto(rs_freep) char *ask =
            rs_asprintf("{\"op\": \"create_actor\", \"actor_id\": \"a%d\", \"class_name\": \"C\", "
                        "\"spec\": \"c3BlYw==\", \"env\": {\"app\": \"x\"}, \"options\": "
                        "{\"runtime_env\": {\"env_vars\": {\"V\": \"%s\"}}}}",
                        i, text);

        world_ask(&w, 0, "p1", ask);
        ck_assert_str_eq(told("kind"), i < 2 ? "" : "ValueError");
    }
    ck_assert_ptr_nonnull(strstr(told("error"), "at most 524288"));
    world_ask(&w, 0, "p1", ACTOR("small", ", \"max_restarts\": 2147483647"));
    world_run(&w, RS_SEC);
    check_state(INFO("small"), "ALIVE");
    world_ask(&w, 0, "p1", "{\"op\": \"kill_actor\", \"actor_id\": \"a0\"}");
    rs_auto(rs_freep) char *again =
        rs_asprintf("{\"op\": \"pool\", \"key\": \"t\", \"env\": {\"app\": \"x\"}, \"options\": "
                    "{\"runtime_env\": {\"env_vars\": {\"V\": \"%s\"}}}}",
                    text);
    world_ask(&w, 0, "p1", again);
    ck_assert_str_eq(told("deployment"), "t");
}
END_TEST

/* --- placement groups --- */

#define GROUP(id, strategy, bundles)                                                               \
    "{\"op\": \"create_group\", \"group_id\": \"" id "\", \"strategy\": \"" strategy               \
    "\", \"bundles\": " bundles "}"
#define GROUP_INFO(id) "{\"op\": \"group_info\", \"group_id\": \"" id "\"}"

static unsigned nodes_of_group(void)
{
    const json_t *nodes = json_object_get(w.answer, "nodes");
    const char *seen[8];
    unsigned n = 0;

    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const char *node = json_string_value(json_array_get(nodes, i));
        bool known = false;

        for (unsigned k = 0; node && k < n; k++)
            known |= strcmp(seen[k], node) == 0;
        if (node && !known)
            seen[n++] = node;
    }
    return n;
}

START_TEST(strategies_of_groups)
{
    static const struct {
        const char *strategy;
        unsigned nodes; /* 0: it cannot be placed */
    } rows[] = {{"PACK", 1}, {"SPREAD", 2}, {"STRICT_PACK", 1}, {"STRICT_SPREAD", 2}};

    open_with(NULL, 0, "{\"CPU\": 2}");
    world_join(&w, 1, "{\"CPU\": 2}");
    world_run(&w, RS_SEC);
    for (size_t i = 0; i < 4; i++) {
        rs_auto(rs_freep) char *ask =
            rs_asprintf("{\"op\": \"create_group\", \"group_id\": \"g\", \"strategy\": \"%s\", "
                        "\"bundles\": [{\"CPU\": 1}, {\"CPU\": 1}]}",
                        rows[i].strategy);

        world_ask(&w, 0, "p1", ask);
        check_state(GROUP_INFO("g"), "CREATED");
        ck_assert_msg(nodes_of_group() == rows[i].nodes, "%s", rows[i].strategy);
        ck_assert(free_cpus() == 2);
        world_ask(&w, 0, "p1", "{\"op\": \"remove_group\", \"group_id\": \"g\"}");
        ck_assert(free_cpus() == 4);
    }
    world_ask(&w, 0, "p1", GROUP("g", "STRICT_PACK", "[{\"CPU\": 2}, {\"CPU\": 1}]"));
    check_state(GROUP_INFO("g"), "PENDING");
    ck_assert_ptr_nonnull(strstr(told("pending"), "STRICT_PACK of 2 CPU; 1 CPU"));
    world_ask(&w, 0, "p1",
              GROUP("h", "STRICT_SPREAD", "[{\"CPU\": 1}, {\"CPU\": 1}, {\"CPU\": 1}]"));
    check_state(GROUP_INFO("h"), "PENDING");
    ck_assert(free_cpus() == 4); /* all of it or nothing */
    world_join(&w, 2, "{\"CPU\": 3}");
    check_state(GROUP_INFO("g"), "CREATED");
    check_state(GROUP_INFO("h"), "PENDING"); /* n2 is full now */
    world_gone(&w, 0, "p1");
    world_ask(&w, 0, "p1", GROUP_INFO("g"));
    ck_assert_str_eq(told("kind"), "ValueError"); /* gone with who made it */
    ck_assert(free_cpus() == 7);
}
END_TEST

START_TEST(actors_in_groups)
{
    open_with(NULL, 0, "{\"CPU\": 4}");
    world_ask(&w, 0, "p1", GROUP("g", "PACK", "[{\"CPU\": 1}, {\"CPU\": 2}]"));
    world_ask(&w, 0, "p1",
              ACTOR("a1", CPUS(1) ", \"strategy\": {\"group\": \"g\", \"bundle\": 0}"));
    world_ask(&w, 0, "p1",
              ACTOR("a2", CPUS(1) ", \"strategy\": {\"group\": \"g\", \"bundle\": 0}"));
    world_ask(&w, 0, "p1", ACTOR("a3", CPUS(2) ", \"strategy\": {\"group\": \"g\"}"));
    world_ask(&w, 0, "p1", ACTOR("a4", CPUS(2)));
    world_run(&w, RS_SEC);
    check_state(INFO("a1"), "ALIVE");
    check_state(INFO("a2"), "PENDING_CREATION");
    ck_assert_ptr_nonnull(strstr(told("pending"), "placement group g has not so much free"));
    check_state(INFO("a3"), "ALIVE");
    check_state(INFO("a4"), "PENDING_CREATION"); /* 1 CPU is outside of the group */
    ck_assert(free_cpus() == 1);
    world_ask(&w, 0, "p1", "{\"op\": \"kill_actor\", \"actor_id\": \"a1\"}");
    world_run(&w, RS_SEC);
    check_state(INFO("a2"), "ALIVE");
    world_ask(&w, 0, "p1", "{\"op\": \"remove_group\", \"group_id\": \"g\"}");
    check_state(INFO("a2"), "DEAD");
    check_state(INFO("a3"), "DEAD");
    world_run(&w, RS_SEC);
    check_state(INFO("a4"), "ALIVE");
    ck_assert(free_cpus() == 2);
}
END_TEST

RS_CHECK_MAIN("core", tcase_add_checked_fixture(tc, NULL, teardown); tcase_add_test(tc, life);
              tcase_add_test(tc, constructor_fails); tcase_add_test(tc, restarts);
              tcase_add_test(tc, without_restarts); tcase_add_test(tc, names);
              tcase_add_test(tc, owners_and_handles);
              tcase_add_test(tc, pending_until_there_is_room);
              tcase_add_test(tc, node_with_a_restartable_actor_leaves);
              tcase_add_test(tc, what_makes_no_sense); tcase_add_test(tc, workers_follow_demand);
              tcase_add_test(tc, idle_workers_make_room);
              tcase_add_test(tc, waiting_workers_lend_their_cpus);
              tcase_add_test(tc, workers_that_die_are_replaced_at_once);
              tcase_add_test(tc, workers_that_cannot_start);
              tcase_add_test(tc, cancelling_by_force); tcase_add_test(tc, names_that_are_taken);
              tcase_add_test(tc, options_without_end); tcase_add_test(tc, strategies_of_groups);
              tcase_add_test(tc, actors_in_groups);)
