/* Controller and agents together, as they are in a cluster: what is applied, what runs then, and what
 * is told of it. */
#include "core/base/buf.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;

#define STATUS "applications.x.status"
#define A_STATUS "applications.x.deployments.A.status"
#define A_TRIGGER "applications.x.deployments.A.status_trigger"
#define A_MESSAGE "applications.x.deployments.A.message"

#define HEAD "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"
#define A_OF(options) HEAD "  deployments:\n  - {name: A, " options "}\n"

static void check_text(const char *path, const char *want)
{
    const char *got = world_text(&w, path);

    ck_assert_msg(strcmp(got, want) == 0, "%s is '%s', not '%s'\n%s", path, got, want, w.log);
}

static void check_contains(const char *path, const char *want)
{
    const char *got = world_text(&w, path);

    ck_assert_msg(strstr(got, want) != NULL, "%s is '%s', without '%s'", path, got, want);
}

static void open_with(struct behaviour *b, size_t n)
{
    world_open(&w, b, n);
    world_join(&w, 0, "{\"CPU\": 8, \"GPU\": 2}");
}

static void teardown(void)
{
    world_close(&w);
}

/* --- coming up --- */

START_TEST(deploy)
{
    struct behaviour b[] = {{.deployment = "A", .start = 50 * RS_MS}};

    open_with(b, 1);
    check_text("proxy_location", "EveryNode");
    world_apply(&w, A_OF("num_replicas: 3"));
    check_text(STATUS, "DEPLOYING");
    ck_assert_str_eq(w.nodes[0].routes ? w.nodes[0].routes : "", "");
    world_run(&w, 40 * RS_MS); /* built, replicas start */
    check_text(STATUS, "DEPLOYING");
    check_text(A_STATUS, "UPDATING");
    check_text("applications.x.deployments.A.replicas.2.state", "STARTING");
    world_run(&w, 100 * RS_MS);
    check_text(STATUS, "RUNNING");
    check_text(A_STATUS, "HEALTHY");
    check_text(A_TRIGGER, "CONFIG_UPDATE_COMPLETED");
    check_text(A_MESSAGE, "");
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    ck_assert_uint_eq(w.builds, 1);
    ck_assert_uint_eq(w.zygotes, 1); /* the one that built forks too */
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A ");
    ck_assert_uint_eq(world_size(&w, "applications.x.deployments.A.replicas"), 3);
    check_text("applications.x.deployments.A.replicas.0.state", "RUNNING");
    ck_assert_int_gt(world_int(&w, "applications.x.deployments.A.replicas.0.pid"), 99);
    check_text("proxies.n0.status", "HEALTHY");
    ck_assert_ptr_null(json_object_get(NULL, "x"));
    ck_assert_ptr_nonnull(strstr(w.log, "x#A=HEALTHY\nx=RUNNING\n"));

    world_apply(&w, A_OF("num_replicas: 3")); /* the same again: nothing happens */
    check_text(STATUS, "RUNNING");
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(w.builds, 1);
    ck_assert_uint_eq(w.behaviours[0].inits, 3);
    ck_assert_uint_eq(w.behaviours[0].reconfigures, 0);
}
END_TEST

START_TEST(ranks_and_environment)
{
    struct behaviour b[] = {{.deployment = "A"}};
    unsigned ranks = 0, devices = 0;

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 2, ray_actor_options: {num_gpus: 1, num_cpus: 2.5}"));
    world_run(&w, RS_SEC);
    for (int i = 0; i < 2; i++) {
        char path[96];

        snprintf(path, sizeof(path), "applications.x.deployments.A.replicas.%d.rserve.rank", i);
        ranks |= 1u << world_int(&w, path);
        snprintf(path, sizeof(path), "applications.x.deployments.A.replicas.%d.replica_id", i);
        struct proc *p = rs_map_get(&w.nodes[0].procs, world_text(&w, path));

        ck_assert_ptr_nonnull(p);
        ck_assert_ptr_nonnull(strstr(p->env, "OMP_NUM_THREADS=2 "));
        devices |= strstr(p->env, "CUDA_VISIBLE_DEVICES=0 ") ? 1 : 0;
        devices |= strstr(p->env, "CUDA_VISIBLE_DEVICES=1 ") ? 2 : 0;
    }
    ck_assert_uint_eq(ranks, 3);
    ck_assert_uint_eq(devices, 3);
}
END_TEST

START_TEST(replicas_of_other_kinds)
{
    struct behaviour b[] = {{.deployment = "web"}, {.deployment = "stage"}};

    open_with(b, 2);
    world_apply(&w, "applications:\n- name: x\n  rserve: {ingress: web}\n  deployments:\n"
                    "  - {name: web, rserve: {kind: http, command: [server, '{port}'], "
                    "ready: {path: /ok}}}\n"
                    "  - {name: stage, rserve: {kind: exec, command: [stage]}}\n");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "web"), 1);
    ck_assert_uint_eq(world_admitted(&w, "stage"), 1);
    ck_assert_uint_eq(w.builds + w.zygotes, 0);
    ck_assert_uint_eq(b[0].inits, 0); /* an HTTP server is probed, not told */
    ck_assert_uint_eq(b[1].inits, 1);
    b[0].deaf = true; /* health checks are probes too */
    world_run(&w, 60 * RS_SEC);
    check_text("applications.x.deployments.web.status_trigger", "HEALTH_CHECK_FAILED");
}
END_TEST

START_TEST(http_replica_that_is_never_ready)
{
    struct behaviour b[] = {{.deployment = "web", .deaf = true}};

    open_with(b, 1);
    world_apply(&w, "applications:\n- name: x\n  rserve: {ingress: web}\n  deployments:\n"
                    "  - {name: web, rserve: {kind: http, command: [server, '{port}'], "
                    "ready: {path: /ok, timeout_s: 2}}}\n");
    world_run(&w, 30 * RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains("applications.x.deployments.web.message",
                   "not ready after 2 s: GET /ok: connection refused");
    ck_assert_uint_eq(world_processes(&w), 0);
}
END_TEST

START_TEST(program_that_does_not_exist)
{
    open_with(NULL, 0);
    world_apply(&w, "applications:\n- name: x\n  rserve: {ingress: web}\n  deployments:\n"
                    "  - {name: web, rserve: {kind: exec, command: [/no/such]}}\n");
    world_run(&w, 10 * RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains("applications.x.deployments.web.message", "cannot execute '/no/such'");
}
END_TEST

/* --- starts that fail --- */

START_TEST(constructor_failure)
{
    struct behaviour b[] = {{.deployment = "A", .fail_starts = 1000}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, 60 * RS_MS);
    check_text(A_STATUS, "UPDATING");
    check_contains(A_MESSAGE, "A replica failed to start with exception. Retrying ");
    check_contains(A_MESSAGE, "Error:\nTraceback (most recent call last):\nValueError: no");
    world_run(&w, 10 * RS_SEC);
    check_text(A_STATUS, "DEPLOY_FAILED");
    check_text(A_TRIGGER, "REPLICA_STARTUP_FAILED");
    check_contains(A_MESSAGE,
                   "The deployment failed to start 3 times in a row. This may be due to a problem "
                   "with its constructor or initial health check failing. See controller logs for "
                   "details. Error:\nTraceback (most recent call last):\nValueError: no");
    check_text(STATUS, "DEPLOY_FAILED");
    check_text("applications.x.message", "Failed to update the deployments ['A'].");
    ck_assert_uint_eq(b[0].inits, 3); /* not once more */
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A! ");
    ck_assert_uint_eq(world_processes(&w), 0); /* the zygote has nobody to fork for */

    b[0].fail_starts = 0; /* repaired; the same configuration again tries again */
    world_apply(&w, A_OF("num_replicas: 1"));
    check_text(STATUS, "DEPLOYING");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A ");
}
END_TEST

START_TEST(silent_exit_in_constructor)
{
    struct behaviour b[] = {{.deployment = "A", .fail_starts = 1000, .exit_silently = true}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, 10 * RS_SEC);
    check_text(A_STATUS, "DEPLOY_FAILED");
    check_contains(A_MESSAGE, "its process exited with status 3 before it was ready");
}
END_TEST

START_TEST(flaky_constructor)
{
    struct behaviour b[] = {{.deployment = "A", .fail_starts = 2}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, 10 * RS_SEC);
    check_text(STATUS, "RUNNING");
    check_text(A_MESSAGE, "");
    ck_assert_uint_eq(b[0].inits, 3);
}
END_TEST

START_TEST(limit_of_retries)
{
    struct behaviour b[] = {{.deployment = "A", .fail_starts = 1000}};

    open_with(b, 1);
    w.graph = "{\"ingress\": \"A\", \"deployments\": [{\"name\": \"A\", \"calls\": [], "
              "\"options\": {\"max_constructor_retry_count\": 2}}]}";
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, 60 * RS_SEC);
    check_text(A_STATUS, "DEPLOY_FAILED");
    ck_assert_uint_eq(b[0].inits, 2);
}
END_TEST

/* --- applications of programs --- */

#define PUT(name, prefix)                                                                          \
    "applications:\n- {name: " name ", import_path: m:app, route_prefix: " prefix "}\n"

START_TEST(programs_deploy_beside_the_file)
{
    struct behaviour b[] = {{.deployment = "A"}};
    struct rs_error err = {0};

    open_with(b, 1);
    ck_assert_int_eq(world_put(&w, PUT("x", "/x"), &err), 0); /* no file was applied ever */
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    check_text("applications.x.source", "imperative");
    check_text("applications.x.deployed_app_config", "null");

    world_apply(&w, PUT("y", "/y"));
    world_run(&w, RS_SEC);
    check_text("applications.y.source", "declarative");
    check_text(STATUS, "RUNNING");

    ck_assert_int_lt(world_put(&w, PUT("z", "/y"), &err), 0);
    ck_assert_str_eq(err.msg, "Prefix /y is being used by application \"y\". Failed to deploy "
                              "application \"z\".");
    ck_assert_uint_eq(world_size(&w, "applications"), 2);

    world_apply(&w, "applications: []\n"); /* deletes what a file deployed, and nothing else */
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_size(&w, "applications"), 1);
    check_text(STATUS, "RUNNING");

    world_apply(&w, PUT("x", "/moved")); /* the file takes it over */
    world_run(&w, RS_SEC);
    check_text("applications.x.source", "declarative");
    ck_assert_str_eq(w.nodes[0].routes, "/moved->A A ");
    ck_assert_int_eq(world_put(&w, PUT("x", "/x"), &err), 0); /* and the program again */
    world_run(&w, RS_SEC);
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A ");

    ck_assert(!rs_controller_delete(w.controller, "absent", w.now));
    ck_assert(rs_controller_delete(w.controller, "x", w.now));
    ck_assert_int_eq(world_put(&w, PUT("other", "/x"), &err), 0); /* its prefix is free at once */
    world_run(&w, 30 * RS_SEC);
    ck_assert_uint_eq(world_size(&w, "applications"), 1);
    check_text("applications.other.status", "RUNNING");
    rs_controller_delete_all(w.controller, w.now);
    world_run(&w, 30 * RS_SEC);
    ck_assert(rs_controller_empty(w.controller));
}
END_TEST

/* --- builds that fail --- */

START_TEST(build_failure)
{
    open_with(NULL, 0);
    w.broken = "m:app";
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_text("applications.x.message",
               "Deploying app 'x' failed with exception:\n"
               "Traceback (most recent call last):\nZeroDivisionError: division by zero");
    check_text("applications.x.route_prefix", "null");
    ck_assert_uint_eq(world_size(&w, "applications.x.deployments"), 0);
    ck_assert_uint_eq(world_processes(&w), 0);
    ck_assert_str_eq(w.nodes[0].routes, ""); /* no route: 404, not 503 */
    w.broken = NULL;
    world_apply(&w, A_OF("num_replicas: 1"));
    check_text(STATUS, "DEPLOYING");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.builds, 2);
}
END_TEST

START_TEST(missing_interpreter)
{
    open_with(NULL, 0);
    world_apply(&w, HEAD "  rserve: {python: /no/python}\n");
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains("applications.x.message", "cannot execute '/no/python'");
}
END_TEST

START_TEST(unknown_deployment_in_the_file)
{
    open_with(NULL, 0);
    world_apply(&w, HEAD "  deployments: [{name: Nope}]\n");
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains("applications.x.message", "ValueError");
    check_contains("applications.x.message", "does not exist");
    check_contains("applications.x.message", "['A']");
}
END_TEST

START_TEST(broken_redeploy_keeps_the_old_version)
{
    json_int_t pid;

    open_with(NULL, 0);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    pid = world_int(&w, "applications.x.deployments.A.replicas.0.pid");
    w.broken = "m:broken";
    world_apply(&w, "applications: [{name: x, import_path: 'm:broken', route_prefix: /x}]");
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    ck_assert_int_eq(world_int(&w, "applications.x.deployments.A.replicas.0.pid"), pid);
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A ");
    ck_assert(world_kill_one(&w, "A")); /* and it is still looked after */
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

START_TEST(failing_new_version_keeps_the_old_one)
{
    struct behaviour b[] = {{.deployment = "A"}};
    json_int_t pid;

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    pid = world_int(&w, "applications.x.deployments.A.replicas.0.pid");
    b[0].fail_starts = 1000;
    world_apply(&w, A_OF("num_replicas: 1, ray_actor_options: {num_cpus: 0.5}"));
    world_run(&w, 20 * RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
    ck_assert_int_eq(world_int(&w, "applications.x.deployments.A.replicas.0.pid"), pid);
    ck_assert_str_eq(w.nodes[0].routes, "/x->A A "); /* not marked as failed: it answers */
}
END_TEST

/* --- changes --- */

START_TEST(light_update)
{
    struct behaviour b[] = {{.deployment = "A"}};
    json_int_t pid;

    open_with(b, 1);
    world_apply(&w, A_OF("user_config: {t: 1}"));
    world_run(&w, RS_SEC);
    pid = world_int(&w, "applications.x.deployments.A.replicas.0.pid");
    world_apply(&w, A_OF("user_config: {t: 2}"));
    check_text(STATUS, "DEPLOYING");
    check_text(A_TRIGGER, "CONFIG_UPDATE_STARTED");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    check_text(A_TRIGGER, "CONFIG_UPDATE_COMPLETED");
    ck_assert_int_eq(world_int(&w, "applications.x.deployments.A.replicas.0.pid"), pid);
    ck_assert_uint_eq(b[0].reconfigures, 1);
    ck_assert_uint_eq(b[0].inits, 1);
    world_apply(&w, A_OF("user_config: {t: 2}, max_queued_requests: 7"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(b[0].reconfigures, 1); /* the queue's number, not the replica's */
    ck_assert_int_eq(world_int(&w, "applications.x.deployments.A.replicas.0.pid"), pid);
}
END_TEST

START_TEST(bad_user_config)
{
    struct behaviour b[] = {{.deployment = "A", .bad_config = true}};

    open_with(b, 1);
    world_apply(&w, A_OF("user_config: {t: 1}"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    b[0].fail_starts = 1000;
    world_apply(&w, A_OF("user_config: {t: 2}"));
    world_run(&w, 20 * RS_SEC);
    check_text(A_STATUS, "DEPLOY_FAILED");
    ck_assert_uint_eq(b[0].inits, 3); /* the reconfigure counts as the first failure */
}
END_TEST

START_TEST(scaling)
{
    struct behaviour b[] = {{.deployment = "A", .start = 20 * RS_MS}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    world_apply(&w, A_OF("num_replicas: 3"));
    check_text(A_STATUS, "UPSCALING");
    check_text(A_TRIGGER, "CONFIG_UPDATE_STARTED");
    check_text(A_MESSAGE, "Upscaling from 1 to 3 replicas.");
    check_text(STATUS, "DEPLOYING");
    world_run(&w, RS_SEC);
    check_text(A_TRIGGER, "UPSCALE_COMPLETED");
    ck_assert_uint_eq(world_admitted(&w, "A"), 3);
    ck_assert_uint_eq(b[0].inits, 3);
    world_apply(&w, A_OF("num_replicas: 2"));
    check_text(A_STATUS, "DOWNSCALING");
    check_text(A_MESSAGE, "Downscaling from 3 to 2 replicas.");
    world_run(&w, RS_SEC);
    check_text(A_STATUS, "HEALTHY");
    check_text(A_TRIGGER, "DOWNSCALE_COMPLETED");
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_uint_eq(b[0].inits, 3);
    ck_assert_uint_eq(world_size(&w, "applications.x.deployments.A.recent_dead_replicas"), 1);
}
END_TEST

static const struct {
    const char *options;
    unsigned replicas, lowest;
} rolls[] = {
    {"num_replicas: 1", 1, 1},
    {"num_replicas: 4", 4, 4},
    {"num_replicas: 4, ray_actor_options: {num_cpus: 0}", 4, 4},
    /* no room beside the old ones: one batch of 20 % goes first */
    {"num_replicas: 8", 8, 7},
};

START_TEST(heavy_update_rolls)
{
    struct behaviour b[] = {{.deployment = "A", .start = 30 * RS_MS, .busy = 40 * RS_MS}};
    rs_auto(rs_freep) char *before =
        rs_asprintf(HEAD "  args: {v: 1}\n  deployments: [{name: A, %s}]\n", rolls[_i].options);
    rs_auto(rs_freep) char *after =
        rs_asprintf(HEAD "  args: {v: 2}\n  deployments: [{name: A, %s}]\n", rolls[_i].options);

    open_with(b, 1);
    world_apply(&w, before);
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    w.watch = "A";
    w.lowest_up = 100;
    world_apply(&w, after);
    check_text(STATUS, "DEPLOYING");
    world_run(&w, 5 * RS_SEC);
    check_text(STATUS, "RUNNING");
    check_text(A_TRIGGER, "CONFIG_UPDATE_COMPLETED");
    ck_assert_uint_eq(world_admitted(&w, "A"), rolls[_i].replicas);
    ck_assert_uint_eq(b[0].inits, 2 * rolls[_i].replicas); /* all of them are new */
    ck_assert_uint_eq(w.lowest_up, rolls[_i].lowest);
    ck_assert_uint_eq(w.builds, 2);
    ck_assert_uint_eq(world_processes(&w), rolls[_i].replicas + 1); /* one zygote is left */
}
END_TEST

START_TEST(delete_drains)
{
    struct behaviour b[] = {{.deployment = "A", .busy = 500 * RS_MS}, {.deployment = "B"}};

    open_with(b, 2);
    w.graph = "{\"ingress\": \"A\", \"deployments\": [{\"name\": \"B\", \"calls\": []}, "
              "{\"name\": \"A\", \"calls\": [\"B\"]}]}";
    world_apply(&w, HEAD);
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    world_apply(&w, "applications: []");
    check_text(STATUS, "DELETING");
    world_run(&w, 100 * RS_MS);
    check_text(STATUS, "DELETING");
    /* no route any more, but what the ingress still works on finds its way */
    ck_assert_str_eq(w.nodes[0].routes, "B A ");
    ck_assert_uint_eq(world_admitted(&w, "A"), 0);
    ck_assert_uint_eq(world_admitted(&w, "B"), 1);
    world_run(&w, RS_SEC);
    check_text(STATUS, "(none)");
    ck_assert_uint_eq(world_processes(&w), 0);
    ck_assert_str_eq(w.nodes[0].routes, "");
    ck_assert(rs_controller_empty(w.controller));
    world_apply(&w, HEAD); /* and back */
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
}
END_TEST

START_TEST(deleted_and_wanted_again_at_once)
{
    struct behaviour b[] = {{.deployment = "A", .busy = 500 * RS_MS}};

    open_with(b, 1);
    world_apply(&w, HEAD);
    world_run(&w, RS_SEC);
    world_apply(&w, "applications: []");
    world_run(&w, 20 * RS_MS);
    world_apply(&w, HEAD);
    world_run(&w, 2 * RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

START_TEST(stubborn_replica_is_killed)
{
    struct behaviour b[] = {{.deployment = "A", .busy = -1, .stubborn = true}};

    open_with(b, 1);
    world_apply(&w, A_OF("graceful_shutdown_timeout_s: 3"));
    world_run(&w, RS_SEC);
    world_apply(&w, "applications: []");
    world_run(&w, 2900 * RS_MS);
    ck_assert_uint_eq(world_processes(&w), 1);
    check_text(STATUS, "DELETING");
    world_run(&w, 2 * RS_SEC); /* SIGTERM, a second, SIGKILL */
    ck_assert_uint_eq(world_processes(&w), 0);
}
END_TEST

/* --- trouble --- */

START_TEST(replica_death)
{
    struct behaviour b[] = {{.deployment = "A", .start = 20 * RS_MS}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 2"));
    world_run(&w, 60 * RS_SEC);
    w.log[0] = '\0';
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 10 * RS_MS);
    check_text(A_STATUS, "UNHEALTHY");
    check_text(A_TRIGGER, "HEALTH_CHECK_FAILED");
    check_contains(A_MESSAGE, "A replica's health check failed. This deployment will be UNHEALTHY "
                              "until the replica recovers or a new deploy happens.");
    check_contains(A_MESSAGE, "was killed by SIGKILL (9)");
    check_text("applications.x.message", "The deployments ['A'] are UNHEALTHY.");
    world_run(&w, 50 * RS_MS); /* replaced at once */
    check_text(A_STATUS, "HEALTHY");
    check_text(A_TRIGGER, "UNSPECIFIED");
    check_text(A_MESSAGE, "");
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    ck_assert_str_eq(w.log, "x#A DEAD\nx#A=UNHEALTHY\nx=UNHEALTHY\nx#A=HEALTHY\nx=RUNNING\n");
}
END_TEST

/* One that dies right after each start is not started in a tight circle. */
START_TEST(death_in_a_circle)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    for (int i = 0; i < 6000; i++) {
        world_run(&w, 10 * RS_MS);
        world_kill_one(&w, "A");
    }
    ck_assert_uint_gt(b[0].inits, 8);
    ck_assert_uint_lt(b[0].inits, 25); /* in a minute */
}
END_TEST

static const struct behaviour ill[] = {{.deployment = "A", .deaf = true},
                                       {.deployment = "A", .sick = true}};

START_TEST(health_checks)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1);
    world_apply(&w, A_OF("health_check_period_s: 1, health_check_timeout_s: 2"));
    world_run(&w, 10 * RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(b[0].inits, 1);
    b[0].deaf = ill[_i].deaf;
    b[0].sick = ill[_i].sick;
    world_run(&w, 1500 * RS_MS);
    check_text(STATUS, "RUNNING"); /* once is nothing */
    world_run(&w, 8 * RS_SEC);
    ck_assert_ptr_nonnull(strstr(w.log, "x#A=UNHEALTHY"));
    check_contains("applications.x.deployments.A.recent_dead_replicas.0.rserve.message",
                   "health check failed 3 times: ");
    b[0].deaf = b[0].sick = false;
    world_run(&w, 20 * RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_ge(b[0].inits, 2);
}
END_TEST

START_TEST(not_enough_resources)
{
    open_with(NULL, 0);
    world_apply(&w, A_OF("ray_actor_options: {num_gpus: 3}"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOYING");
    check_text(A_MESSAGE, "1 replica of 1 pending: needs 3 GPU; node has 2");
    ck_assert_int_eq(world_int(&w, "applications.x.deployments.A.rserve.pending"), 1);
    world_apply(&w, A_OF("num_replicas: 20"));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 8); /* what fits runs */
    check_text(A_MESSAGE, "12 replicas of 20 pending: needs 1 CPU; node has 8, 0 free");
    world_join(&w, 1, "{\"CPU\": 12}");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 20);
}
END_TEST

START_TEST(zygote_death)
{
    struct behaviour b[] = {{.deployment = "A"}};
    const char *id = NULL;

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    for (size_t i = 0; i < rs_map_slots(&w.nodes[0].procs); i++) {
        const char *key = NULL;

        if (rs_map_at(&w.nodes[0].procs, i, &key) && strchr(key, '@'))
            id = key;
    }
    ck_assert_ptr_nonnull(id);
    rs_auto(rs_freep) char *key = rs_strdup(id);

    struct proc *zygote = rs_map_remove(&w.nodes[0].procs, key);

    free(zygote->env);
    free(zygote);
    rs_agent_zygote_exited(w.nodes[0].agent, key, SIGKILL, "", w.now);
    check_text(STATUS, "RUNNING"); /* replicas go on without it */
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(w.zygotes, 2);
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 1);
}
END_TEST

START_TEST(spawn_instead_of_fork)
{
    open_with(NULL, 0);
    w.graph =
        "{\"ingress\": \"A\", \"start\": \"spawn\", \"start_reason\": \"another thread runs\","
        " \"deployments\": [{\"name\": \"A\", \"calls\": []}]}";
    world_apply(&w, A_OF("num_replicas: 2"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    check_text("applications.x.rserve.start", "spawn");
    check_text("applications.x.rserve.start_reason", "another thread runs");
    ck_assert_uint_eq(world_processes(&w), 2); /* the zygote is not needed any more */
}
END_TEST

/* --- several nodes --- */

START_TEST(two_nodes)
{
    open_with(NULL, 0);
    world_join(&w, 1, "{\"CPU\": 8}");
    world_apply(&w, A_OF("num_replicas: 4"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.builds, 1);
    ck_assert_uint_eq(rs_map_count(&w.nodes[0].procs), 3); /* two and a zygote */
    ck_assert_uint_eq(rs_map_count(&w.nodes[1].procs), 3);
    ck_assert_ptr_nonnull(strstr(w.nodes[0].remotes, "A@n1=10\n")); /* two of five each */
    ck_assert_ptr_nonnull(strstr(w.nodes[1].remotes, "A@n0=10\n"));
    check_text("proxies.n1.node_ip", "10.0.0.1");
}
END_TEST

START_TEST(node_loss)
{
    open_with(NULL, 0);
    world_join(&w, 1, "{\"CPU\": 8}");
    world_apply(&w, A_OF("num_replicas: 4"));
    world_run(&w, RS_SEC);
    world_leave(&w, 1);
    check_text(A_STATUS, "UNHEALTHY");
    check_contains(A_MESSAGE, "Node 'n1' left with 2 running replicas");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(world_admitted(&w, "A"), 4);
    ck_assert_ptr_nonnull(strstr(w.nodes[0].remotes, "A@n1=0\n"));
    world_join(&w, 1, "{\"CPU\": 8}"); /* what runs stays where it is */
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(rs_map_count(&w.nodes[1].procs), 0);
}
END_TEST

START_TEST(builder_lost)
{
    open_with(NULL, 0);
    world_join(&w, 1, "{\"CPU\": 8}");
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, 3 * RS_MS);
    world_leave(&w, 0);
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.builds, 2);
}
END_TEST

START_TEST(no_node_yet)
{
    world_open(&w, NULL, 0);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOYING");
    world_join(&w, 2, "{\"CPU\": 1}");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
}
END_TEST

/* A head that starts anew takes over what runs. */
START_TEST(new_head)
{
    struct behaviour b[] = {{.deployment = "A"}};

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 2"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    world_new_head(&w);
    world_run(&w, RS_SEC); /* the node goes on alone */
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, RS_SEC);
    ck_assert_uint_eq(world_admitted(&w, "A"), 2);
    w.watch = "A";
    w.lowest_up = 100;
    world_apply(&w, A_OF("num_replicas: 2"));
    world_join(&w, 0, "{\"CPU\": 8, \"GPU\": 2}");
    world_run(&w, RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.lowest_up, 2);
    ck_assert_uint_eq(b[0].inits, 3); /* two, and the one that was killed */
}
END_TEST

static char *kept(void)
{
    rs_auto(rs_json_decrefp) json_t *desired = rs_controller_desired(w.controller);
    json_t *config = json_object_get(desired, "config");
    json_t *list = json_object_get(json_object_get(config, "document"), "applications"), *app;
    rs_auto(rs_buf_fini) struct rs_buf b = {0};
    const char *name;
    size_t i;

    json_array_foreach (list, i, app)
        rs_buf_printf(&b, "%s ", json_string_value(json_object_get(app, "name")));
    rs_buf_puts(&b, "|");
    json_object_foreach (json_object_get(desired, "apps"), name, app)
        rs_buf_printf(&b, " %s", name);
    return rs_strdup(rs_buf_text(&b));
}

static void check_kept(const char *want)
{
    rs_auto(rs_freep) char *got = kept();

    ck_assert_str_eq(got, want);
}

/* What a head that starts anew is to be told: no more of what was deleted since. */
START_TEST(what_is_desired)
{
    struct behaviour b[] = {{.deployment = "A"}};
    struct rs_error err = {0};

    open_with(b, 1);
    check_kept("|");
    ck_assert_int_eq(world_put(&w, PUT("x", "/x"), &err), 0);
    check_kept("| x");
    world_apply(&w, "applications:\n- {name: y, route_prefix: /y, import_path: 'm:app'}\n"
                    "- {name: z, route_prefix: /z, import_path: 'm:app'}\n");
    check_kept("y z | x");
    world_run(&w, RS_SEC);
    ck_assert(rs_controller_delete(w.controller, "y", w.now));
    check_kept("z | x");
    ck_assert_int_eq(world_put(&w, PUT("z", "/z"), &err), 0); /* a program takes it over */
    check_kept("| x z");
    rs_controller_delete_all(w.controller, w.now);
    check_kept("|");
}
END_TEST

/* --- the end --- */

START_TEST(drain_and_kill)
{
    struct behaviour b[] = {{.deployment = "A", .busy = _i ? -1 : 300 * RS_MS}};
    struct rs_agent *a;

    open_with(b, 1);
    world_apply(&w, A_OF("num_replicas: 2"));
    world_run(&w, RS_SEC);
    a = w.nodes[0].agent;
    rs_agent_drain(a, w.now);
    ck_assert(!rs_agent_done(a));
    world_run(&w, 100 * RS_MS);
    rs_auto(rs_freep) char *waits = rs_agent_waits_for(a);

    ck_assert_msg(strncmp(waits, "2 replicas: x#A#", 16) == 0, "%s", waits);
    ck_assert_ptr_nonnull(strstr(waits, "(finishes its requests)"));
    if (_i)
        rs_agent_kill_all(a, w.now);
    world_run(&w, _i ? 10 * RS_MS : RS_SEC);
    ck_assert(rs_agent_done(a));
    ck_assert_uint_eq(world_processes(&w), 0);
}
END_TEST

/* The keys that Ray has, and no other ones unless they are asked for. */
START_TEST(shape_of_details)
{
    static const char *const keys[] = {"applications",    "controller_health_metrics",
                                       "controller_info", "grpc_options",
                                       "http_options",    "proxies",
                                       "proxy_location",  "restores_unset_config_options",
                                       "target_capacity", "target_groups"};
    static const char *const app_keys[] = {"deployed_app_config",
                                           "deployment_topology",
                                           "deployments",
                                           "docs_path",
                                           "external_scaler_enabled",
                                           "last_deployed_time_s",
                                           "message",
                                           "name",
                                           "route_prefix",
                                           "source",
                                           "status"};
    static const char *const deployment_keys[] = {"name",
                                                  "status",
                                                  "status_trigger",
                                                  "message",
                                                  "deployment_config",
                                                  "target_num_replicas",
                                                  "required_resources",
                                                  "replicas",
                                                  "recent_dead_replicas"};
    static const char *const replica_keys[] = {"node_id",       "node_ip",     "node_instance_id",
                                               "actor_id",      "actor_name",  "worker_id",
                                               "log_file_path", "replica_id",  "state",
                                               "pid",           "start_time_s"};

    open_with(NULL, 0);
    world_apply(&w, A_OF("num_replicas: 1"));
    world_run(&w, RS_SEC);
    rs_auto(rs_json_decrefp) json_t *j = rs_controller_details(w.controller, false, w.now);
    const json_t *app = json_object_get(json_object_get(j, "applications"), "x");
    const json_t *d = json_object_get(json_object_get(app, "deployments"), "A");
    const json_t *r = json_array_get(json_object_get(d, "replicas"), 0);

    ck_assert_uint_eq(json_object_size(j), RS_COUNT(keys));
    for (size_t i = 0; i < RS_COUNT(keys); i++)
        ck_assert_msg(json_object_get(j, keys[i]) != NULL, "%s", keys[i]);
    ck_assert_uint_eq(json_object_size(app), RS_COUNT(app_keys));
    for (size_t i = 0; i < RS_COUNT(app_keys); i++)
        ck_assert_msg(json_object_get(app, app_keys[i]) != NULL, "%s", app_keys[i]);
    ck_assert_uint_eq(json_object_size(d), RS_COUNT(deployment_keys));
    for (size_t i = 0; i < RS_COUNT(deployment_keys); i++)
        ck_assert_msg(json_object_get(d, deployment_keys[i]) != NULL, "%s", deployment_keys[i]);
    ck_assert_uint_eq(json_object_size(r), RS_COUNT(replica_keys));
    for (size_t i = 0; i < RS_COUNT(replica_keys); i++)
        ck_assert_msg(json_object_get(r, replica_keys[i]) != NULL, "%s", replica_keys[i]);
    ck_assert(json_is_null(json_object_get(j, "target_capacity")));
    ck_assert_str_eq(rs_json_str(app, "source", ""), "declarative");
    ck_assert_str_eq(rs_json_str(app, "route_prefix", ""), "/x");
}
END_TEST

START_TEST(summary)
{
    struct rs_controller_summary s;

    open_with(NULL, 0);
    world_apply(&w, A_OF("num_replicas: 2"));
    rs_controller_summary(w.controller, &s);
    ck_assert(!s.settled && s.apps[0].building);
    ck_assert_uint_eq(s.deployments, 0);
    rs_controller_summary_fini(&s);
    world_run(&w, RS_SEC);
    rs_controller_summary(w.controller, &s);
    ck_assert(s.settled && !s.failed);
    ck_assert_uint_eq(s.n_apps, 1);
    ck_assert_uint_eq(s.replicas, 2);
    ck_assert_uint_eq(s.running, 2);
    ck_assert_str_eq(s.apps[0].start, "fork");
    ck_assert_str_eq(s.apps[0].deployments[0].name, "A");
    ck_assert_str_eq(s.apps[0].deployments[0].kind, "python");
    ck_assert_uint_eq(s.apps[0].deployments[0].running, 2);
    rs_controller_summary_fini(&s);
}
END_TEST

RS_CHECK_MAIN(
    "cluster", tcase_add_checked_fixture(tc, NULL, teardown); tcase_add_test(tc, deploy);
    tcase_add_test(tc, ranks_and_environment); tcase_add_test(tc, replicas_of_other_kinds);
    tcase_add_test(tc, http_replica_that_is_never_ready);
    tcase_add_test(tc, program_that_does_not_exist); tcase_add_test(tc, constructor_failure);
    tcase_add_test(tc, silent_exit_in_constructor); tcase_add_test(tc, flaky_constructor);
    tcase_add_test(tc, limit_of_retries); tcase_add_test(tc, build_failure);
    tcase_add_test(tc, missing_interpreter); tcase_add_test(tc, unknown_deployment_in_the_file);
    tcase_add_test(tc, broken_redeploy_keeps_the_old_version);
    tcase_add_test(tc, failing_new_version_keeps_the_old_one); tcase_add_test(tc, light_update);
    tcase_add_test(tc, bad_user_config); tcase_add_test(tc, scaling);
    tcase_add_loop_test(tc, heavy_update_rolls, 0, RS_COUNT(rolls));
    tcase_add_test(tc, delete_drains); tcase_add_test(tc, deleted_and_wanted_again_at_once);
    tcase_add_test(tc, stubborn_replica_is_killed); tcase_add_test(tc, replica_death);
    tcase_add_test(tc, death_in_a_circle); tcase_add_loop_test(tc, health_checks, 0, RS_COUNT(ill));
    tcase_add_test(tc, not_enough_resources); tcase_add_test(tc, zygote_death);
    tcase_add_test(tc, spawn_instead_of_fork); tcase_add_test(tc, two_nodes);
    tcase_add_test(tc, node_loss); tcase_add_test(tc, builder_lost);
    tcase_add_test(tc, no_node_yet); tcase_add_test(tc, new_head);
    tcase_add_test(tc, what_is_desired); tcase_add_loop_test(tc, drain_and_kill, 0, 2);
    tcase_add_test(tc, shape_of_details); tcase_add_test(tc, programs_deploy_beside_the_file);
    tcase_add_test(tc, summary);)
