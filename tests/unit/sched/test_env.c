/* Environments: built before anything starts in them, by builders that are only pretended here. */
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

static struct world w;

#define STATUS "applications.x.status"
#define MESSAGE "applications.x.message"
#define DEPLOYMENT(name) "applications.x.deployments." name

#define APP(name, env)                                                                             \
    "- name: " name "\n  import_path: m:app\n  route_prefix: /" name "\n  runtime_env: " env "\n"
#define X(env) "applications:\n" APP("x", env)

static const char *const two =
    "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": "
    "[{\"name\": \"A\", \"options\": {}, \"calls\": [\"B\"]}, {\"name\": \"B\", \"calls\": [], "
    "\"options\": {\"ray_actor_options\": {\"runtime_env\": {\"pip\": [\"own\"]}}}}]}";

static void check_text(const char *path, const char *want)
{
    const char *got = world_text(&w, path);

    ck_assert_msg(strcmp(got, want) == 0, "%s is '%s', not '%s'\n%s", path, got, want, w.log);
}

static void check_contains(const char *got, const char *want)
{
    ck_assert_msg(strstr(got, want) != NULL, "'%s' is without '%s'\n%s", got, want, w.log);
}

static void setup(void)
{
    world_open(&w, NULL, 0);
    world_join(&w, 0, "{\"CPU\": 8}");
}

static void teardown(void)
{
    world_close(&w);
}

START_TEST(is_built_before_the_zygote_starts)
{
    world_apply(&w, X("{pip: [torch], env_vars: {A: b}}"));
    world_run(&w, 20 * RS_MS);
    check_text(STATUS, "DEPLOYING");
    check_text(MESSAGE, "Setting up the runtime environment: installing torch");
    ck_assert_uint_eq(w.zygotes, 0);
    ck_assert_str_eq(world_env(&w, "env"), "A=b ");
    check_contains(w.env_asked, "\"pip\":[\"torch\"]");
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "RUNNING");
    check_text(MESSAGE, "");
    ck_assert_uint_eq(w.env_builds, 1);
    check_contains(world_env(&w, "zygote"), "A=b {\"python\":[\"/envs/1/bin/python\"]");
    /* Another zygote in the same environment needs no builder. */
    ck_assert(world_kill_one(&w, "A"));
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.env_builds, 1);
}
END_TEST

START_TEST(nothing_to_build)
{
    world_apply(&w, X("{env_vars: {A: '${HOME}/x:${NONE}:$B ${', B: c}, pip: [], conda: null,"
                      " config: {eager_install: true}}"));
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.env_builds, 0);
    check_contains(world_env(&w, "zygote"), "A=/home/u/x::$B ${ B=c ");
    check_contains(world_env(&w, "A"), "A=/home/u/x::$B ${ B=c ");
}
END_TEST

START_TEST(a_broken_one_is_built_once)
{
    w.env = ENV_BROKEN;
    world_apply(&w, X("{pip: [torch]}"));
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "DEPLOY_FAILED");
    check_text(MESSAGE, "Runtime env setup for app 'x' failed:\npip failed\n  ERROR: no torch");
    world_run(&w, 600 * RS_SEC);
    ck_assert_uint_eq(w.env_builds, 1);
    ck_assert_uint_eq(w.zygotes, 0);
    ck_assert_uint_eq(world_processes(&w), 0);
    /* The same again, by request: perhaps what was missing is there now. */
    w.env = ENV_OK;
    world_apply(&w, X("{pip: [torch]}"));
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.env_builds, 2);
}
END_TEST

START_TEST(the_network_gets_another_chance)
{
    w.env = ENV_NETWORK;
    w.env_bad = 2;
    world_apply(&w, X("{pip: [torch]}"));
    world_run(&w, RS_SEC);
    check_text(STATUS, "DEPLOYING");
    check_text(MESSAGE, "Setting up the runtime environment: trying again in 2 s (attempt 1 of 3 "
                        "failed): pip failed");
    world_run(&w, 8 * RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.env_builds, 3);
}
END_TEST

START_TEST(but_not_for_ever)
{
    w.env = ENV_NETWORK;
    world_apply(&w, X("{pip: [torch]}"));
    world_run(&w, 60 * RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains(world_text(&w, MESSAGE), "ERROR: no torch");
    ck_assert_uint_eq(w.env_builds, 3);
}
END_TEST

START_TEST(takes_too_long)
{
    w.env = ENV_HANGS;
    world_apply(&w, X("{pip: [torch], config: {setup_timeout_seconds: 5}}"));
    world_run(&w, 4 * RS_SEC);
    check_text(STATUS, "DEPLOYING");
    world_run(&w, 2 * RS_SEC);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains(world_text(&w, MESSAGE),
                   "not finished after 5 s (config.setup_timeout_seconds); it was at: installing "
                   "torch");
    ck_assert_uint_eq(world_processes(&w), 0);
    ck_assert_uint_eq(w.env_builds, 1);
}
END_TEST

START_TEST(may_take_for_ever)
{
    w.env = ENV_HANGS;
    world_apply(&w, X("{pip: [torch], config: {setup_timeout_seconds: -1}}"));
    world_run(&w, 3600 * RS_SEC);
    check_text(STATUS, "DEPLOYING");
    ck_assert_uint_eq(w.env_builds, 1);
}
END_TEST

START_TEST(a_killed_builder_is_started_again)
{
    w.env = ENV_DIES;
    w.env_bad = 1;
    world_apply(&w, X("{pip: [torch]}"));
    world_run(&w, RS_SEC);
    check_contains(world_text(&w, MESSAGE),
                   "was killed by SIGKILL (9) while it was at: installing");
    world_run(&w, 5 * RS_SEC);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.env_builds, 2);
}
END_TEST

START_TEST(deleted_while_it_is_built)
{
    w.env = ENV_HANGS;
    world_apply(&w, X("{pip: [torch]}"));
    world_run(&w, 100 * RS_MS);
    ck_assert_uint_eq(world_processes(&w), 1);
    rs_agent_drain(w.nodes[0].agent, w.now);
    world_run(&w, 100 * RS_MS);
    ck_assert_uint_eq(world_processes(&w), 0);
    ck_assert(rs_agent_done(w.nodes[0].agent));
}
END_TEST

START_TEST(applications_share_one)
{
    world_apply(&w, "applications:\n" APP("x", "{pip: [torch], env_vars: {A: b}}")
                        APP("y", "{pip: [torch], env_vars: {A: b}}"));
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "RUNNING");
    check_text("applications.y.status", "RUNNING");
    ck_assert_uint_eq(w.env_builds, 1);
    ck_assert_uint_eq(w.zygotes, 2);
}
END_TEST

START_TEST(a_deployment_has_its_own)
{
    w.graph = two;
    world_apply(&w, X("{env_vars: {A: b}}"));
    world_run(&w, 60 * RS_MS);
    check_text(DEPLOYMENT("A.status"), "HEALTHY");
    check_text(DEPLOYMENT("B.message"),
               "1 replica of 1 pending: Setting up the runtime environment: installing torch");
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "RUNNING");
    ck_assert_uint_eq(w.env_builds, 1);
    ck_assert_uint_eq(w.zygotes, 2);
    check_contains(w.env_asked, "\"pip\":[\"own\"]");
    check_contains(w.env_asked, "\"env_vars\":{\"A\":\"b\"}"); /* merged */
}
END_TEST

START_TEST(a_deployment_with_a_broken_one)
{
    w.graph = two;
    w.env = ENV_BROKEN;
    world_apply(&w, X("{}"));
    world_run(&w, 30 * RS_SEC);
    check_text(DEPLOYMENT("A.status"), "HEALTHY");
    check_text(DEPLOYMENT("B.status"), "DEPLOY_FAILED");
    check_contains(world_text(&w, DEPLOYMENT("B.message")), "pip failed\n  ERROR: no torch");
    ck_assert_uint_eq(w.env_builds, 1); /* each further start is told what the first one was */
}
END_TEST

START_TEST(fresh_processes_wait_for_it)
{
    world_apply(&w, X("{working_dir: 'http://h/z.zip'}") "  rserve: {start: spawn}\n");
    world_run(&w, 100 * RS_MS);
    ck_assert_uint_eq(w.zygotes, 1); /* described the graph */
    world_run(&w, 400 * RS_MS);
    check_text(STATUS, "RUNNING");
    check_contains(world_env(&w, "A"), "\"cwd\":\"/envs/code\"");
    /* Nobody waits for it any more: the next replica looks again whether it is there. */
    ck_assert(world_kill_one(&w, "A"));
    w.env = ENV_BROKEN;
    world_run(&w, 400 * RS_MS);
    check_contains(world_text(&w, DEPLOYMENT("A.message")), "ERROR: no torch");
}
END_TEST

START_TEST(no_interpreter_to_build_with)
{
    world_apply(&w, X("{pip: [torch]}") "  rserve: {python: /no/python}\n");
    world_run(&w, 300 * RS_MS);
    check_text(STATUS, "DEPLOY_FAILED");
    check_contains(world_text(&w, MESSAGE), "cannot execute '/no/python'");
}
END_TEST

RS_CHECK_MAIN("env", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_test(tc, is_built_before_the_zygote_starts);
              tcase_add_test(tc, nothing_to_build); tcase_add_test(tc, a_broken_one_is_built_once);
              tcase_add_test(tc, the_network_gets_another_chance);
              tcase_add_test(tc, but_not_for_ever); tcase_add_test(tc, takes_too_long);
              tcase_add_test(tc, may_take_for_ever);
              tcase_add_test(tc, a_killed_builder_is_started_again);
              tcase_add_test(tc, deleted_while_it_is_built);
              tcase_add_test(tc, applications_share_one);
              tcase_add_test(tc, a_deployment_has_its_own);
              tcase_add_test(tc, a_deployment_with_a_broken_one);
              tcase_add_test(tc, fresh_processes_wait_for_it);
              tcase_add_test(tc, no_interpreter_to_build_with);)
