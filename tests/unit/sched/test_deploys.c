/* The odd deploys: what comes of each stands in sched/README.md. */
#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/config/config.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;

#define GRAPH                                                                                      \
    "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": [{\"name\": \"A\", \"options\": "  \
    "{}, "                                                                                         \
    "\"calls\": []}]}"

/* --- what the nodes were told of routes --- */

static struct {
    char must[8][16]; /* prefixes that somebody has to answer below from now on */
    size_t n;
    unsigned tables;
    char fault[256]; /* "" */
} routes;

static void on_routes(struct world *x, const struct rs_agent_routes *r)
{
    routes.tables++;
    for (size_t i = 0; i < r->n_apps; i++)
        for (size_t k = 0; k < i; k++)
            if (r->apps[i].prefix && r->apps[k].prefix &&
                strcmp(r->apps[i].prefix, r->apps[k].prefix) == 0)
                snprintf(routes.fault, sizeof(routes.fault), "%s and %s both have %s",
                         r->apps[k].name, r->apps[i].name, r->apps[i].prefix);
    for (size_t m = 0; m < routes.n; m++) {
        bool found = false;

        for (size_t i = 0; i < r->n_apps; i++)
            found |= r->apps[i].prefix && strcmp(r->apps[i].prefix, routes.must[m]) == 0;
        if (!found)
            snprintf(routes.fault, sizeof(routes.fault), "nobody has %s", routes.must[m]);
    }
}

static void must(const char *prefix)
{
    snprintf(routes.must[routes.n++], sizeof(routes.must[0]), "%s", prefix);
}

static void check_routes(void)
{
    ck_assert_msg(!routes.fault[0], "%s\n%s", routes.fault, w.log);
}

static void open_with(struct behaviour *b, size_t n)
{
    memset(&routes, 0, sizeof(routes));
    world_open(&w, b, n);
    w.graph = GRAPH;
    w.on_routes = on_routes;
    world_join(&w, 0, "{\"CPU\": 8}");
}

static void teardown(void)
{
    world_close(&w);
}

static void check_text(const char *path, const char *want)
{
    char got[600];

    snprintf(got, sizeof(got), "%s", world_text(&w, path));
    ck_assert_msg(strcmp(got, want) == 0, "%s is '%s', not '%s'\n%s", path, got, want, w.log);
}

static void check_has(const char *path, const char *want)
{
    char got[2000];

    snprintf(got, sizeof(got), "%s", world_text(&w, path));
    ck_assert_msg(strstr(got, want) != NULL, "%s is '%s', without '%s'", path, got, want);
}

#define STATUS(app) "applications." app ".status"
#define MESSAGE(app) "applications." app ".message"
#define ROUTE(app) "applications." app ".route_prefix"
#define APP(name, path, prefix)                                                                    \
    "- {name: " name ", import_path: 'm:" path "', route_prefix: " prefix "}\n"
#define APPS "applications:\n"

/* --- routes that change hands --- */

START_TEST(two_swap)
{
    open_with(NULL, 0);
    world_apply(&w, APPS APP("x", "x", "/x") APP("y", "y", "/y"));
    world_run(&w, RS_SEC);
    must("/x");
    must("/y");
    world_apply(&w, APPS APP("x", "x", "/y") APP("y", "y", "/x"));
    world_run(&w, RS_SEC);
    check_routes();
    check_text(ROUTE("x"), "/y");
    check_text(ROUTE("y"), "/x");
    check_text(STATUS("x"), "RUNNING");
    ck_assert_uint_eq(world_processes(&w), 4); /* two zygotes and what they forked: all as before */
}
END_TEST

START_TEST(two_swap_one_with_new_code)
{
    struct behaviour b[] = {{.deployment = "A", .start = 300 * RS_MS}};

    open_with(b, 1);
    world_apply(&w, APPS APP("x", "x", "/x") APP("y", "y", "/y"));
    world_run(&w, RS_SEC);
    must("/x");
    must("/y");
    world_apply(&w, APPS APP("x", "x2", "/y") APP("y", "y", "/x"));
    check_text(STATUS("y"), "DEPLOYING");
    check_has(MESSAGE("y"), "waits to take over route prefix /x from application 'x'");
    world_run(&w, 2 * RS_SEC);
    check_routes();
    check_text(ROUTE("x"), "/y");
    check_text(ROUTE("y"), "/x");
    check_text(STATUS("y"), "RUNNING");
}
END_TEST

START_TEST(three_go_round)
{
    open_with(NULL, 0);
    world_apply(&w, APPS APP("x", "x", "/x") APP("y", "y", "/y") APP("z", "z", "/z"));
    world_run(&w, RS_SEC);
    must("/x");
    must("/y");
    must("/z");
    world_apply(&w, APPS APP("x", "x", "/y") APP("y", "y2", "/z") APP("z", "z", "/x"));
    world_run(&w, RS_SEC);
    check_routes();
    check_text(ROUTE("x"), "/y");
    check_text(ROUTE("y"), "/z");
    check_text(ROUTE("z"), "/x");
}
END_TEST

START_TEST(a_swap_half_of_which_fails)
{
    open_with(NULL, 0);
    world_apply(&w, APPS APP("x", "x", "/x") APP("y", "y", "/y"));
    world_run(&w, RS_SEC);
    must("/x");
    must("/y");
    w.broken = "m:bad";
    world_apply(&w, APPS APP("x", "bad", "/y") APP("y", "y", "/x"));
    world_run(&w, RS_SEC);
    check_routes(); /* both go on where they were */
    check_text(ROUTE("x"), "/x");
    check_text(ROUTE("y"), "/y");
    check_text(STATUS("x"), "DEPLOY_FAILED");
    check_text(STATUS("y"), "DEPLOY_FAILED");
    check_has(MESSAGE("y"), "Prefix /x is being used by application \"x\"");
    world_apply(&w, APPS APP("x", "x", "/y") APP("y", "y", "/x"));
    world_run(&w, RS_SEC);
    check_routes();
    check_text(ROUTE("x"), "/y");
    check_text(STATUS("x"), "RUNNING");
    check_text(STATUS("y"), "RUNNING");
}
END_TEST

START_TEST(the_route_of_one_that_is_deleted)
{
    struct behaviour b[] = {{.deployment = "A", .start = 300 * RS_MS}};

    open_with(b, 1);
    world_apply(&w, APPS APP("x", "x", "/r"));
    world_run(&w, RS_SEC);
    must("/r");
    world_apply(&w, APPS APP("y", "y", "/r"));
    check_text(STATUS("x"), "DELETING");
    world_run(&w, 100 * RS_MS); /* built, but not there yet */
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    check_text(ROUTE("x"), "/r");
    world_run(&w, 2 * RS_SEC);
    check_routes();
    check_text(STATUS("x"), "(none)");
    check_text(ROUTE("y"), "/r");
    check_text(STATUS("y"), "RUNNING");
}
END_TEST

START_TEST(the_route_of_one_that_is_deleted_by_one_that_fails)
{
    open_with(NULL, 0);
    world_apply(&w, APPS APP("x", "x", "/r"));
    world_run(&w, RS_SEC);
    w.broken = "m:bad";
    world_apply(&w, APPS APP("y", "bad", "/r"));
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "(none)"); /* it was told to go */
    check_text(STATUS("y"), "DEPLOY_FAILED");
    w.hangs = "m:hangs";
    world_apply(&w, APPS APP("y", "y", "/r"));
    world_run(&w, RS_SEC);
    world_apply(&w, APPS APP("z", "hangs", "/r"));
    world_run(&w, 10 * RS_SEC);
    check_text(STATUS("y"), "DELETING");
    check_text(ROUTE("y"), "/r"); /* it serves while there is hope */
    world_run(&w, 400 * RS_SEC);
    check_text(STATUS("y"), "(none)");
    check_text(STATUS("z"), "DEPLOY_FAILED");
}
END_TEST

START_TEST(the_route_of_one_whose_room_it_needs)
{
    open_with(NULL, 0);
    world_apply(&w,
                APPS "- {name: x, import_path: 'm:x', route_prefix: /r, deployments: [{name: A, "
                     "ray_actor_options: {num_cpus: 8}}]}\n");
    world_run(&w, RS_SEC);
    world_apply(&w,
                APPS "- {name: y, import_path: 'm:y', route_prefix: /r, deployments: [{name: A, "
                     "ray_actor_options: {num_cpus: 8}}]}\n");
    world_run(&w, 30 * RS_SEC); /* neither waits for the other for ever */
    check_text(STATUS("x"), "(none)");
    check_text(ROUTE("y"), "/r");
    check_text(STATUS("y"), "RUNNING");
}
END_TEST

START_TEST(one_moves_away_for_a_new_one)
{
    struct behaviour b[] = {{.deployment = "A", .start = 300 * RS_MS}};

    open_with(b, 1);
    world_apply(&w, APPS APP("x", "x", "/r"));
    world_run(&w, RS_SEC);
    must("/r");
    world_apply(&w, APPS APP("x", "x", "/old") APP("y", "y", "/r"));
    world_run(&w, 2 * RS_SEC);
    check_routes();
    check_text(ROUTE("x"), "/old");
    check_text(ROUTE("y"), "/r");
}
END_TEST

START_TEST(the_route_of_a_program)
{
    struct rs_error err = {0};

    open_with(NULL, 0);
    ck_assert_int_eq(world_put(&w, APPS APP("p", "p", "/r"), &err), 0);
    world_run(&w, RS_SEC);
    must("/r");
    world_apply(&w, APPS APP("x", "x", "/r"));
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "DEPLOY_FAILED");
    check_text(MESSAGE("x"), "Prefix /r is being used by application \"p\". Failed to deploy "
                             "application \"x\".");
    check_text(STATUS("p"), "RUNNING");
    ck_assert(rs_controller_delete(w.controller, "p", w.now));
    world_run(&w, RS_SEC);
    check_routes();
    check_text(STATUS("x"), "RUNNING"); /* by itself, once the route is free */
    check_text(ROUTE("x"), "/r");
}
END_TEST

/* --- one deploy during another --- */

START_TEST(deploy_during_a_build)
{
    open_with(NULL, 0);
    w.hangs = "m:hangs";
    world_apply(&w, APPS APP("x", "hangs", "/x"));
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "DEPLOYING");
    world_apply(&w, APPS APP("x", "good", "/x"));
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "RUNNING");
    ck_assert_uint_eq(world_processes(&w), 2); /* what hung was stopped */
    world_run(&w, 600 * RS_SEC);               /* and its end is no news */
    check_text(STATUS("x"), "RUNNING");
}
END_TEST

START_TEST(deploy_during_a_roll)
{
    struct behaviour b[] = {{.deployment = "A", .start = RS_SEC}};

    open_with(b, 1);
    world_apply(&w, APPS "- {name: x, import_path: 'm:one', route_prefix: /x, deployments: [{name: "
                         "A, num_replicas: 3}]}\n");
    world_run(&w, 5 * RS_SEC);
    w.watch = "A";
    w.lowest_up = 99;
    world_apply(&w, APPS "- {name: x, import_path: 'm:two', route_prefix: /x, deployments: [{name: "
                         "A, num_replicas: 3}]}\n");
    world_run(&w, 1500 * RS_MS); /* some are new */
    check_text(STATUS("x"), "DEPLOYING");
    world_apply(&w,
                APPS "- {name: x, import_path: 'm:three', route_prefix: /x, deployments: [{name:"
                     " A, num_replicas: 3}]}\n");
    world_run(&w, 30 * RS_SEC);
    check_text(STATUS("x"), "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    ck_assert_uint_ge(w.lowest_up, 3); /* and never were fewer */
    ck_assert_uint_eq(world_size(&w, "applications.x.deployments.A.replicas"), 3);
}
END_TEST

START_TEST(back_to_the_old_one_during_a_roll)
{
    struct behaviour b[] = {{.deployment = "A", .start = RS_SEC}};

    open_with(b, 1);
    world_apply(&w, APPS APP("x", "one", "/x"));
    world_run(&w, 5 * RS_SEC);
    world_apply(&w, APPS APP("x", "two", "/x"));
    world_run(&w, 500 * RS_MS); /* built; its replica starts */
    world_apply(&w, APPS APP("x", "one", "/x"));
    world_run(&w, 30 * RS_SEC);
    check_text(STATUS("x"), "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

START_TEST(delete_during_a_build)
{
    open_with(NULL, 0);
    w.hangs = "m:hangs";
    world_apply(&w, APPS APP("x", "hangs", "/x") APP("y", "y", "/y"));
    world_run(&w, RS_SEC);
    ck_assert(rs_controller_delete(w.controller, "x", w.now));
    world_run(&w, 5 * RS_SEC);
    check_text(STATUS("x"), "(none)");
    check_text(STATUS("y"), "RUNNING");
    ck_assert_uint_eq(world_processes(&w), 2); /* of y */
}
END_TEST

START_TEST(delete_during_a_roll)
{
    struct behaviour b[] = {{.deployment = "A", .start = RS_SEC}};

    open_with(b, 1);
    world_apply(&w, APPS APP("x", "one", "/x"));
    world_run(&w, 5 * RS_SEC);
    world_apply(&w, APPS APP("x", "two", "/x"));
    world_run(&w, 500 * RS_MS);
    ck_assert(rs_controller_delete(w.controller, "x", w.now));
    world_run(&w, 30 * RS_SEC);
    check_text(STATUS("x"), "(none)");
    ck_assert_uint_eq(world_processes(&w), 0);
}
END_TEST

START_TEST(deploy_during_a_delete)
{
    struct behaviour b[] = {{.deployment = "A", .busy = 5 * RS_SEC}};

    open_with(b, 1);
    world_apply(&w, APPS APP("x", "one", "/x"));
    world_run(&w, 5 * RS_SEC);
    ck_assert(rs_controller_delete(w.controller, "x", w.now));
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "DELETING"); /* it finishes what it is at */
    world_apply(&w, APPS APP("x", "one", "/x"));
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "DEPLOYING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1); /* a new one, at once */
    world_run(&w, 10 * RS_SEC);
    check_text(STATUS("x"), "RUNNING");
}
END_TEST

START_TEST(an_override_of_what_is_no_more)
{
    open_with(NULL, 0);
    world_apply(&w, APPS APP("x", "one", "/x"));
    world_run(&w, RS_SEC);
    world_apply(&w, APPS "- {name: x, import_path: 'm:one', route_prefix: /x, deployments: [{name: "
                         "Gone, num_replicas: 2}]}\n");
    world_run(&w, RS_SEC);
    check_text(STATUS("x"), "DEPLOY_FAILED");
    check_has(MESSAGE("x"), "Deployment 'Gone' does not exist. Available: ['A']");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1); /* what ran goes on */
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A ");
}
END_TEST

START_TEST(an_import_that_hangs)
{
    open_with(NULL, 0);
    w.hangs = "m:hangs";
    world_apply(&w, APPS "- {name: x, import_path: 'm:hangs', route_prefix: /x, rserve: "
                         "{build_timeout_s: 20}}\n" APP("y", "y", "/y"));
    world_run(&w, RS_SEC);
    check_text(STATUS("y"), "RUNNING"); /* nobody waits for it */
    world_run(&w, 18 * RS_SEC);
    check_text(STATUS("x"), "DEPLOYING");
    world_run(&w, 5 * RS_SEC);
    check_text(STATUS("x"), "DEPLOY_FAILED");
    check_has(MESSAGE("x"), "importing 'm:hangs' did not end within 20 s");
    ck_assert_uint_eq(world_processes(&w), 2); /* of y */
}
END_TEST

/* --- any of it, in any order --- */

static uint64_t seed;

static unsigned draw(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % n;
}

/* All of these prefixes are always somebody's; who has which, and with what code, changes. */
static char *shuffled(void)
{
    static const char *const names[] = {"x", "y", "z", "v"};
    static const char *const prefixes[] = {"/1", "/2", "/3"};
    struct rs_buf b = {0};
    unsigned first = draw(4), turn = draw(3);

    rs_buf_puts(&b, APPS);
    for (unsigned i = 0; i < 3; i++)
        rs_buf_printf(&b, "- {name: %s, import_path: 'm:v%u', route_prefix: %s}\n",
                      names[(first + i) % 4], draw(3), prefixes[(turn + i) % 3]);
    return rs_buf_steal(&b);
}

START_TEST(prefixes_are_never_without_an_application)
{
    struct behaviour b[] = {{.deployment = "A", .start = 100 * RS_MS, .busy = 200 * RS_MS}};
    rs_auto(rs_freep) char *first = NULL, *last = NULL;
    rs_auto(rs_config_freep) struct rs_config *config = NULL;

    seed = (uint64_t)_i * 104729 + 7;
    open_with(b, 1);
    first = shuffled();
    world_apply(&w, first);
    world_run(&w, 10 * RS_SEC);
    must("/1");
    must("/2");
    must("/3");
    for (int step = 0; step < 12; step++) {
        free(last);
        last = shuffled();
        world_apply(&w, last);
        world_run(&w, (int64_t)draw(400) * RS_MS); /* the next one may come in the middle of it */
        check_routes();
    }
    world_run(&w, 60 * RS_SEC);
    check_routes();
    config = world_config(last);
    for (size_t i = 0; i < config->app_count; i++) {
        char path[64];

        snprintf(path, sizeof(path), "applications.%s.route_prefix", config->apps[i].name);
        check_text(path, config->apps[i].route_prefix);
        snprintf(path, sizeof(path), "applications.%s.status", config->apps[i].name);
        check_text(path, "RUNNING");
    }
    ck_assert_uint_eq(world_size(&w, "applications"), 3);
}
END_TEST

RS_CHECK_MAIN("deploys", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_test(tc, two_swap); tcase_add_test(tc, two_swap_one_with_new_code);
              tcase_add_test(tc, three_go_round); tcase_add_test(tc, a_swap_half_of_which_fails);
              tcase_add_test(tc, the_route_of_one_that_is_deleted);
              tcase_add_test(tc, the_route_of_one_that_is_deleted_by_one_that_fails);
              tcase_add_test(tc, the_route_of_one_whose_room_it_needs);
              tcase_add_test(tc, one_moves_away_for_a_new_one);
              tcase_add_test(tc, the_route_of_a_program); tcase_add_test(tc, deploy_during_a_build);
              tcase_add_test(tc, deploy_during_a_roll);
              tcase_add_test(tc, back_to_the_old_one_during_a_roll);
              tcase_add_test(tc, delete_during_a_build); tcase_add_test(tc, delete_during_a_roll);
              tcase_add_test(tc, deploy_during_a_delete);
              tcase_add_test(tc, an_override_of_what_is_no_more);
              tcase_add_test(tc, an_import_that_hangs);
              tcase_add_loop_test(tc, prefixes_are_never_without_an_application, 0, 8);)
