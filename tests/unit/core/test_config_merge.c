#include "core/config/deployment.h"
#include "tests/unit/check_main.h"

#include "core/base/alloc.h"

#include <string.h>

/* An application with one entry for deployment A; `entry` and `app` are flow-style YAML members that
 * begin with a comma, or "". */
static struct rs_config *config_of(const char *entry, const char *app, const char *top)
{
    rs_auto(rs_freep) char *text = rs_asprintf("{applications: [{name: x, import_path: 'm:a',"
                                               " deployments: [{name: A%s}]%s}]%s}",
                                               entry, app, top);
    struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    int r = rs_config_parse(&c, text, strlen(text), "/f/app.yaml", &diags);

    ck_assert_msg(r == 0, "%s: %s", text, diags.count ? diags.items[0].text : "");
    rs_diags_fini(&diags);
    return c;
}

static json_t *json_of(const char *text)
{
    json_t *j = NULL;

    if (!text)
        return NULL;
    j = json_loads(text, JSON_DECODE_ANY, NULL);
    ck_assert_msg(j != NULL, "%s", text);
    return j;
}

/* The conf, or NULL with the first error in `why`. */
static struct rs_deployment_conf *merged(const struct rs_config *c, const char *code,
                                         struct rs_buf *why)
{
    rs_auto(rs_json_decrefp) json_t *options = json_of(code);
    struct rs_deployment_conf *conf = NULL;
    struct rs_diags diags = {0};
    int r = rs_deployment_merge(&conf, c, &c->apps[0], "A", options, &diags);

    for (size_t i = 0; i < diags.count; i++)
        rs_diag_print(why, &diags.items[i]);
    ck_assert_int_eq(r, conf ? 0 : -1);
    ck_assert_int_eq(r == 0, diags.errors == 0);
    ck_assert_uint_eq(diags.errors, diags.deploy_errors);
    rs_diags_fini(&diags);
    return conf;
}

static struct rs_deployment_conf *conf_of(const char *entry, const char *code)
{
    rs_auto(rs_config_freep) struct rs_config *c = config_of(entry, "", "");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    struct rs_deployment_conf *conf = merged(c, code, &why);

    ck_assert_msg(conf != NULL, "%s", rs_buf_text(&why));
    return conf; /* it outlives the config */
}

/* --- precedence ---------------------------------------------------------------------------------- */

START_TEST(defaults)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = conf_of("", "{}");
    const char *key;
    json_t *v;

    ck_assert_str_eq(c->name, "A");
    ck_assert_int_eq(c->num_replicas, 1);
    ck_assert(!c->autoscaling_enabled);
    ck_assert_int_eq(c->max_ongoing_requests, 5);
    ck_assert_int_eq(c->max_queued_requests, -1);
    ck_assert_int_eq(c->graceful_shutdown_wait_loop, INT64_C(2000000000));
    ck_assert_int_eq(c->graceful_shutdown_timeout, INT64_C(20000000000));
    ck_assert_int_eq(c->health_check_period, INT64_C(10000000000));
    ck_assert_int_eq(c->health_check_timeout, INT64_C(30000000000));
    ck_assert_int_eq(c->max_constructor_retry_count, 20);
    ck_assert_ptr_null(c->user_config);
    ck_assert_int_eq(c->resources.cpu, RS_ONE);
    ck_assert_int_eq(c->resources.gpu, 0);
    ck_assert_int_eq(c->max_replicas_per_node, 0);
    ck_assert_int_eq(c->gang_size, 0);
    ck_assert_double_eq(c->rolling_update_percentage, 0.2);
    ck_assert_int_eq(c->max_surge_percent, 25);
    ck_assert_int_eq(c->rollout.when_full, RS_FULL_STOP_FIRST);
    ck_assert_uint_eq(c->rollout.pause_replicas, 0);
    ck_assert_double_eq(c->rollout.pause_percent, 0);
    ck_assert_int_eq(c->rollout.min_ready, 0);
    ck_assert_int_eq(c->rollout.deadline, INT64_C(600000000000));
    ck_assert(!c->rollout.analysis.enabled && !c->rollout.canary.enabled);
    ck_assert_int_eq(c->backpressure_status, 503);
    ck_assert_int_eq(c->backpressure_retry_after, -1);
    ck_assert_int_eq(c->logging.level, 20);
    ck_assert_int_eq(c->kind, RS_KIND_PYTHON);
    ck_assert_ptr_null(c->command);
    ck_assert_int_eq(c->port, 0);
    ck_assert_int_eq(c->request_timeout, -1);
    ck_assert(json_is_object(c->runtime_env));
    json_object_foreach (c->sources, key, v) {
        if (strcmp(key, "name") != 0)
            ck_assert_msg(strcmp(json_string_value(v), "default") == 0, "%s", key);
        ck_assert_ptr_nonnull(json_object_get(c->json, key));
    }
    ck_assert_uint_ge(json_object_size(c->sources), 25);
}
END_TEST

/* For each option: what the file, the code and nobody says, and what holds then. */
static const struct {
    const char *option, *file, *code, *want, *source;
} precedence[] = {
    {"max_ongoing_requests", NULL, NULL, "5", "default"},
    {"max_ongoing_requests", NULL, "7", "7", "code"},
    {"max_ongoing_requests", "9", "7", "9", "file"},
    {"max_ongoing_requests", "9", NULL, "9", "file"},
    {"max_queued_requests", "3", "-1", "3", "file"},
    {"user_config", NULL, "[1]", "[1]", "code"},
    {"user_config", "{a: 1}", "{\"b\": 2}", "{\"a\":1}", "file"},
    {"user_config", "null", "{\"b\": 2}", "null", "file"},
    {"graceful_shutdown_timeout_s", NULL, "1", "1.0", "code"},
    {"ray_actor_options", NULL, "{\"num_gpus\": 1, \"memory\": 5}",
     "{\"num_gpus\":1.0,\"memory\":5.0,\"num_cpus\":1.0}", "code"},
    {"ray_actor_options", "{num_cpus: 2}", "{\"num_gpus\": 1}", "{\"num_cpus\":2.0}", "file"},
    {"logging_config", "{log_level: DEBUG}", "{\"log_level\": \"ERROR\"}",
     "{\"log_level\":\"DEBUG\"}", "file"},
    {"backpressure_config", NULL, "{\"status_code\": 429}",
     "{\"status_code\":429,\"retry_after_s\":null}", "code"},
    {"max_constructor_retry_count", NULL, "2", "2", "code"},
    {"rolling_update_percentage", "1", "0.5", "1.0", "file"},
    {"num_replicas", "3", "2", "3", "file"},
    {"num_replicas", NULL, "2", "2", "code"},
    {"num_replicas", "null", "2", "2", "code"},
};

START_TEST(order_of_precedence)
{
    const char *option = precedence[_i].option;
    rs_auto(rs_freep) char *entry =
        precedence[_i].file ? rs_asprintf(", %s: %s", option, precedence[_i].file) : rs_strdup("");
    rs_auto(rs_freep) char *code =
        precedence[_i].code ? rs_asprintf("{\"%s\": %s}", option, precedence[_i].code) : NULL;
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = conf_of(entry, code);
    rs_auto(rs_freep) char *got = rs_json_dump(json_object_get(c->json, option));

    ck_assert_str_eq(got, precedence[_i].want);
    ck_assert_str_eq(rs_json_str(c->sources, option, ""), precedence[_i].source);
}
END_TEST

/* --- replicas ------------------------------------------------------------------------------------ */

static const struct {
    const char *file, *code;
    int fixed; /* 0: autoscaling with the numbers below */
    int min, max;
    double target;
} replicas[] = {
    {"", "{}", 1, 0, 0, 0},
    {"", "{\"num_replicas\": \"auto\"}", 0, 1, 100, 2},
    {"", "{\"num_replicas\": \"auto\", \"autoscaling_config\": {\"max_replicas\": 7}}", 0, 1, 7, 2},
    {"", "{\"autoscaling_config\": {\"max_replicas\": 7}}", 0, 1, 7, 2},
    {"", "{\"num_replicas\": null, \"autoscaling_config\": {\"min_replicas\": 0}}", 0, 0, 1, 2},
    {", num_replicas: 2", "{\"autoscaling_config\": {\"max_replicas\": 7}}", 2, 0, 0, 0},
    {", num_replicas: 2", "{\"num_replicas\": \"auto\"}", 2, 0, 0, 0},
    {", num_replicas: auto", "{\"num_replicas\": 5}", 0, 1, 100, 2},
    {", num_replicas: auto", "{\"autoscaling_config\": {\"max_replicas\": 7}}", 0, 1, 7, 2},
    {", num_replicas: auto, autoscaling_config: {min_replicas: 3}",
     "{\"autoscaling_config\": {\"max_replicas\": 7}}", 0, 3, 100, 2},
    {", autoscaling_config: {max_replicas: 9}", "{\"num_replicas\": 5}", 0, 1, 9, 2},
    {", autoscaling_config: {max_replicas: 9}",
     "{\"autoscaling_config\": {\"min_replicas\": 2, \"max_replicas\": 3}}", 0, 1, 9, 2},
    {", autoscaling_config: null", "{\"autoscaling_config\": {\"max_replicas\": 7}}", 1, 0, 0, 0},
    {", autoscaling_config: {max_replicas: 9, target_num_ongoing_requests_per_replica: 6}", "{}", 0,
     1, 9, 6},
    {", autoscaling_config: {max_replicas: 9, target_ongoing_requests: null}", "{}", 0, 1, 9, 2},
};

START_TEST(replica_counts)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c =
        conf_of(replicas[_i].file, replicas[_i].code);

    ck_assert_int_eq(c->autoscaling_enabled, replicas[_i].fixed == 0);
    if (replicas[_i].fixed) {
        ck_assert_int_eq(c->num_replicas, replicas[_i].fixed);
        ck_assert_int_eq(rs_json_int(c->json, "num_replicas", 0), replicas[_i].fixed);
        ck_assert(json_is_null(json_object_get(c->json, "autoscaling_config")));
        return;
    }
    ck_assert(json_is_null(json_object_get(c->json, "num_replicas")));
    ck_assert_int_eq(c->num_replicas, replicas[_i].min);
    ck_assert_int_eq(c->autoscaling.min_replicas, replicas[_i].min);
    ck_assert_int_eq(c->autoscaling.max_replicas, replicas[_i].max);
    ck_assert_double_eq(c->autoscaling.target_ongoing_requests, replicas[_i].target);
}
END_TEST

START_TEST(autoscaling_fills)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = conf_of(
        ", autoscaling_config: {initial_replicas: 3, max_replicas: 5, smoothing_factor: 0.5,"
        " upscale_smoothing_factor: 0.7, downscale_delay_s: 7, aggregation_function: max,"
        " policy: {policy_function: 'p:f', policy_kwargs: {a: 1}}}",
        NULL);

    ck_assert_int_eq(c->num_replicas, 3);
    ck_assert_int_eq(c->autoscaling.initial_replicas, 3);
    ck_assert_double_eq(c->autoscaling.upscaling_factor, 0.7);
    ck_assert_double_eq(c->autoscaling.downscaling_factor, 0.5);
    ck_assert_int_eq(c->autoscaling.downscale_to_zero_delay, INT64_C(7000000000));
    ck_assert_int_eq(c->autoscaling.upscale_delay, INT64_C(30000000000));
    ck_assert_str_eq(c->autoscaling.aggregation_function, "max");
    ck_assert_str_eq(c->autoscaling.policy_function, "p:f");
    ck_assert_int_eq(rs_json_int(c->autoscaling.policy_kwargs, "a", 0), 1);
}
END_TEST

static const struct {
    int n;
    double percent;
    int want;
} capacities[] = {{3, -1, 3},  {3, 100, 3}, {3, 50, 2}, {1, 1, 1},  {10, 25, 3},
                  {10, 24, 2}, {5, 0, 0},   {0, 50, 0}, {4, 10, 1}, {200, 99.9, 200}};

START_TEST(target_capacity)
{
    ck_assert_int_eq(rs_target_capacity_apply(capacities[_i].n, capacities[_i].percent),
                     capacities[_i].want);
}
END_TEST

START_TEST(capacity_of_a_config)
{
    rs_auto(rs_config_freep) struct rs_config *fixed =
        config_of(", num_replicas: 5", "", ", target_capacity: 50");
    rs_auto(rs_config_freep) struct rs_config *scaled =
        config_of(", autoscaling_config: {min_replicas: 2, initial_replicas: 6, max_replicas: 10}",
                  "", ", target_capacity: 50");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *a = merged(fixed, NULL, &why);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *b = merged(scaled, NULL, &why);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *again = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(a->num_replicas, 3);
    ck_assert_int_eq(rs_json_int(a->json, "num_replicas", 0), 5);
    ck_assert_int_eq(b->num_replicas, 3);
    ck_assert_int_eq(b->autoscaling.min_replicas, 1);
    ck_assert_int_eq(b->autoscaling.max_replicas, 5);
    ck_assert_int_eq(rs_deployment_conf_from_json(&again, b->json, &err), 0);
    ck_assert_int_eq(again->autoscaling.max_replicas, 5);
}
END_TEST

/* --- environment, logging, extension ------------------------------------------------------------- */

START_TEST(runtime_env)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        config_of(", ray_actor_options: {runtime_env: {pip: [b], env_vars: {B: dep, C: dep}}}",
                  ", runtime_env: {pip: [a], working_dir: w, env_vars: {A: app, B: app}}", "");
    rs_auto(rs_json_decrefp) json_t *want =
        json_of("{\"pip\": [\"b\"], \"working_dir\": \"/f/w\","
                " \"env_vars\": {\"A\": \"app\", \"B\": \"dep\", \"C\": \"dep\"}}");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *conf = merged(c, NULL, &why);

    ck_assert(json_equal(conf->runtime_env, want));
    ck_assert(json_equal(json_object_get(conf->ray_actor_options, "runtime_env"), want));
}
END_TEST

/* Each relative to where it was written; one tool displaces another. */
START_TEST(runtime_env_of_file_and_code)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        config_of("", ", runtime_env: {uv: [./a.whl, b], py_modules: [m, 'http://h/z.zip']}", "");
    static const char *const code =
        "{\"ray_actor_options\": {\"runtime_env\": {\"pip\": [\"-r more.txt\", \"x==1 # one\"],"
        " \"working_dir\": \"~/w\", \"py_executable\": \"./py -u\"}}}";
    rs_auto(rs_freep) char *home = rs_asprintf("%s/w", getenv("HOME") ? getenv("HOME") : "/f/~");
    rs_auto(rs_json_decrefp) json_t *want =
        json_pack("{s:[s,s], s:[s,s], s:s, s:s}", "pip", "-r /f/more.txt", "x==1", "py_modules",
                  "/f/m", "http://h/z.zip", "working_dir", home, "py_executable", "/f/py -u");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *conf = merged(c, code, &why);

    ck_assert_str_eq(
        json_string_value(json_array_get(json_object_get(c->apps[0].runtime_env, "uv"), 0)),
        "/f/a.whl");
    ck_assert_msg(conf && json_equal(conf->runtime_env, want), "%s %s", rs_buf_text(&why),
                  conf ? "merged otherwise" : "");
}
END_TEST

START_TEST(logging_of_the_application)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        config_of("", ", logging_config: {log_level: WARNING, encoding: JSON}", "");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *a = merged(c, NULL, &why);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *b =
        merged(c, "{\"logging_config\": {\"log_level\": 10}}", &why);

    ck_assert_int_eq(a->logging.level, 30);
    ck_assert_int_eq(a->logging.encoding, RS_ENCODING_JSON);
    ck_assert_str_eq(rs_json_str(a->sources, "logging_config", ""), "application");
    ck_assert_int_eq(b->logging.level, 10);
    ck_assert_int_eq(b->logging.encoding, RS_ENCODING_TEXT);
}
END_TEST

START_TEST(extension)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = conf_of(
        ", rserve: {kind: http, command: './run --port {port} \"a b\"', cwd: work, calls: [B],"
        " env: {M: '1'}, ready: {path: /h, timeout_s: 1.5}, request_timeout_s: 2}",
        NULL);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *exec =
        conf_of(", rserve: {kind: exec, command: [tool, x]}", NULL);

    ck_assert_int_eq(c->kind, RS_KIND_HTTP);
    ck_assert_str_eq(c->command[0], "/f/run");
    ck_assert_str_eq(c->command[1], "--port");
    ck_assert_str_eq(c->command[2], "{port}");
    ck_assert_str_eq(c->command[3], "a b");
    ck_assert_ptr_null(c->command[4]);
    ck_assert_str_eq(c->cwd, "/f/work");
    ck_assert_str_eq(rs_json_str(c->env, "M", ""), "1");
    ck_assert_str_eq(c->ready_path, "/h");
    ck_assert_int_eq(c->ready_timeout, 1500000000);
    ck_assert_int_eq(c->request_timeout, 2000000000);
    ck_assert_uint_eq(json_array_size(c->calls), 1);
    ck_assert_str_eq(exec->command[0], "tool"); /* looked up on PATH */
    ck_assert_ptr_null(exec->cwd);
    ck_assert_int_eq(exec->ready_timeout, INT64_C(60000000000));
}
END_TEST

/* --- refusals ------------------------------------------------------------------------------------ */

static const struct {
    const char *file, *app, *code, *why;
} refusals[] = {
    {"", "", "{\"num_replicas\": 2, \"autoscaling_config\": {}}",
     "code: x.A: Manually setting num_replicas is not allowed when autoscaling_config is "
     "provided."},
    {"", "", "{\"max_ongoing_requests\": 0}",
     "code: x.A.max_ongoing_requests: expected an integer >= 1, got 0"},
    {"", "", "[]", "code: x.A: expected a mapping of options"},
    {"", "", "{\"autoscaling_config\": {\"min_replicas\": 3}}",
     "x.A.autoscaling_config.min_replicas: max_replicas (1) must be greater than or equal to "
     "min_replicas (3)!"},
    {", placement_group_strategy: PACK", "", NULL,
     "/f/app.yaml:1:61: x.A.placement_group_strategy: If `placement_group_strategy` is provided, "
     "`placement_group_bundles` must also be provided."},
    {", max_replicas_per_node: 2", "", "{\"placement_group_bundles\": [{\"CPU\": 1}]}",
     "x.A.max_replicas_per_node: Setting max_replicas_per_node is not allowed when "
     "placement_group_bundles is provided."},
    {", gang_scheduling_config: {gang_size: 2}, max_replicas_per_node: 2, num_replicas: 2", "",
     NULL, "not allowed when gang_scheduling_config is provided."},
    {", gang_scheduling_config: {gang_size: 2}, num_replicas: 3", "", NULL,
     "x.A.num_replicas: expected a multiple of gang_size (2), got 3"},
    {", gang_scheduling_config: {gang_size: 2}", "",
     "{\"autoscaling_config\": {\"min_replicas\": 0, \"max_replicas\": 4}}",
     "min_replicas: 0 is not possible with gang_scheduling_config"},
    {", placement_group_bundles: [{CPU: 0.5}]", "", NULL,
     "the replica runs in the first bundle, which holds 0.5 CPU; it needs 1 CPU"},
    {", placement_group_bundles: []", "", NULL, "expected at least one bundle, got none"},
    {", placement_group_bundle_label_selector: [{a: b}]", "", NULL,
     "`placement_group_bundles` must also be provided."},
    {", placement_group_bundles: [{CPU: 1}, {CPU: 1}, {CPU: 1}],"
     " placement_group_bundle_label_selector: [{a: b}, {a: c}]",
     "", NULL, "expected 1 selector or one for each of the 3 bundles, got 2"},
    {", deployment_actors: [{name: a, actor_class: 'm:C'}, {name: a, actor_class: 'm:D'}]", "",
     NULL, "two actors are named \"a\""},
    {"", "", "{\"ray_actor_options\": {\"num_gpus\": 1.5}}",
     "x.A.ray_actor_options: num_gpus: expected a whole number above 1, got 1.5"},
    {"", ", external_scaler_enabled: true", "{\"autoscaling_config\": {}}",
     "external_scaler_enabled is set to True, but the following deployment(s) have autoscaling "
     "configured: \"A\""},
};

START_TEST(refuses)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        config_of(refusals[_i].file, refusals[_i].app, "");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};

    ck_assert_ptr_null(merged(c, refusals[_i].code, &why));
    ck_assert_msg(strstr(rs_buf_text(&why), refusals[_i].why) != NULL, "%s", rs_buf_text(&why));
}
END_TEST

static const struct {
    const char *code, *warning, *app;
} doubts[] = {
    {"{\"nonsense\": 1}", "code: warning: x.A.nonsense: unknown key, ignored"},
    {"{\"autoscaling_config\": {\"target_ongoing_requests\": 9}}",
     "max_ongoing_requests (5) is below target_ongoing_requests (9): autoscaling will never "
     "happen"},
    {"{\"autoscaling_config\": {\"look_back_period_s\": 5}}",
     "look_back_period_s (5) should be greater than metrics_interval_s (10)"},
    {"{\"autoscaling_config\": {\"policy\": {\"policy_function\": \"m:own\"}}}",
     "both a deployment-level and an application-level policy for deployment A. The "
     "application-level policy will take precedence",
     ", autoscaling_policy: {policy_function: m:all}"},
    {"{\"max_concurrent_queries\": 9}", "legacy name of \"max_ongoing_requests\""},
};

START_TEST(warns)
{
    rs_auto(rs_config_freep) struct rs_config *c =
        config_of("", doubts[_i].app ? doubts[_i].app : "", "");
    rs_auto(rs_buf_fini) struct rs_buf why = {0};
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *conf =
        merged(c, doubts[_i].code, &why);

    ck_assert_ptr_nonnull(conf);
    ck_assert_msg(strstr(rs_buf_text(&why), doubts[_i].warning) != NULL, "%s", rs_buf_text(&why));
}
END_TEST

/* --- JSON ---------------------------------------------------------------------------------------- */

/* As Ray 2.60 shows a deployment in GET /api/serve/applications/. */
START_TEST(details)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c =
        conf_of(", max_ongoing_requests: 11", "{}");
    rs_auto(rs_json_decrefp) json_t *got = rs_deployment_conf_json(c);
    rs_auto(rs_json_decrefp) json_t *want =
        json_of("{\"name\": \"A\", \"num_replicas\": 1, \"max_ongoing_requests\": 11,"
                " \"max_queued_requests\": -1,"
                " \"backpressure_config\": {\"status_code\": 503, \"retry_after_s\": null},"
                " \"user_config\": null, \"graceful_shutdown_wait_loop_s\": 2.0,"
                " \"graceful_shutdown_timeout_s\": 20.0, \"health_check_period_s\": 10.0,"
                " \"health_check_timeout_s\": 30.0, \"ray_actor_options\": {\"num_cpus\": 1.0},"
                " \"request_router_config\": {\"request_router_class\":"
                " \"ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter\","
                " \"request_router_kwargs\": {}, \"request_routing_stats_period_s\": 10.0,"
                " \"request_routing_stats_timeout_s\": 30.0, \"initial_backoff_s\": 0.025,"
                " \"backoff_multiplier\": 2.0, \"max_backoff_s\": 0.5},"
                " \"rolling_update_percentage\": 0.2, \"max_surge_percent\": 0}");

    ck_assert(json_equal(got, want));
}
END_TEST

START_TEST(details_of_the_rest)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *scaled =
        conf_of(", num_replicas: auto, logging_config: {log_level: DEBUG}", NULL);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *exec =
        conf_of(", rserve: {kind: exec, command: ./x}", NULL);
    rs_auto(rs_json_decrefp) json_t *a = rs_deployment_conf_json(scaled);
    rs_auto(rs_json_decrefp) json_t *b = rs_deployment_conf_json(exec);

    ck_assert_ptr_null(json_object_get(a, "num_replicas"));
    ck_assert_ptr_null(json_object_get(a, "logging_config"));
    ck_assert_ptr_null(json_object_get(a, "rserve"));
    ck_assert_uint_eq(json_object_size(json_object_get(a, "autoscaling_config")), 16);
    ck_assert_str_eq(rs_json_str(json_object_get(b, "rserve"), "kind", ""), "exec");
}
END_TEST

/* A node that gets the JSON builds the same. */
START_TEST(round_trip)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c =
        conf_of(", num_replicas: auto, max_replicas_per_node: 3, user_config: {a: 1},"
                " ray_actor_options: {num_gpus: 0.5, runtime_env: {env_vars: {A: b}}},"
                " rserve: {kind: http, command: 'x {port}', cwd: w}",
                NULL);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *again = NULL;
    rs_auto(rs_buf_fini) struct rs_buf fields = {0};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_deployment_conf_from_json(&again, c->json, &err), 0);
    ck_assert(json_equal(c->json, again->json));
    ck_assert(rs_resources_equal(&c->resources, &again->resources));
    ck_assert(json_equal(c->runtime_env, again->runtime_env));
    ck_assert_str_eq(again->command[1], "{port}");
    ck_assert_int_eq(again->max_replicas_per_node, 3);
    ck_assert_int_eq(again->autoscaling.max_replicas, 100);
    ck_assert_uint_eq(rs_deployment_conf_diff(c, again, &fields), RS_RELOAD_NONE);
    ck_assert_str_eq(rs_buf_text(&fields), "");
    ck_assert(rs_deployment_conf_heavy_hash(c) == rs_deployment_conf_heavy_hash(again));
}
END_TEST

static const struct {
    const char *json, *why;
} bad_json[] = {
    {"[]", "expected the options"},
    {"{}", "name: Field required"},
    {"{\"name\": \"A\", \"max_ongoing_requests\": \"x\"}", "max_ongoing_requests: expected"},
    {"{\"name\": \"A\", \"ray_actor_options\": {\"num_gpus\": 1.5}}", "num_gpus"},
};

START_TEST(from_json_refuses)
{
    rs_auto(rs_json_decrefp) json_t *json = json_of(bad_json[_i].json);
    struct rs_deployment_conf *c = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_deployment_conf_from_json(&c, json, &err), -1);
    ck_assert_ptr_null(c);
    ck_assert_msg(strstr(err.msg, bad_json[_i].why) != NULL, "%s", err.msg);
}
END_TEST

/* --- what a change asks for ---------------------------------------------------------------------- */

static const struct {
    const char *before, *after;
    unsigned bits;
    const char *fields;
} changes[] = {
    {"", "", 0, ""},
    {"", ", max_ongoing_requests: 5", 0, ""},
    {"", ", num_replicas: 2", RS_RELOAD_LIGHT, "num_replicas"},
    {"", ", max_queued_requests: 2", RS_RELOAD_LIGHT, "max_queued_requests"},
    {"", ", max_ongoing_requests: 6", RS_RELOAD_RECONFIGURE, "max_ongoing_requests"},
    {"", ", user_config: {a: 1}", RS_RELOAD_RECONFIGURE, "user_config"},
    {", user_config: {a: 1}", ", user_config: {a: 2}", RS_RELOAD_RECONFIGURE, "user_config"},
    {", user_config: {a: 1}", "", RS_RELOAD_LIGHT, "user_config"},
    {"", ", graceful_shutdown_timeout_s: 1", RS_RELOAD_CONTROLLER, "graceful_shutdown_timeout_s"},
    {"", ", health_check_period_s: 1, max_ongoing_requests: 6",
     RS_RELOAD_CONTROLLER | RS_RELOAD_RECONFIGURE, "max_ongoing_requests, health_check_period_s"},
    {"", ", ray_actor_options: {num_cpus: 1}", 0, ""},
    {"", ", ray_actor_options: {num_cpus: 2}", RS_RELOAD_RESTART, "ray_actor_options"},
    {"", ", num_replicas: auto", RS_RELOAD_LIGHT, "num_replicas, autoscaling_config"},
    {", num_replicas: auto", ", num_replicas: auto, autoscaling_config: {max_replicas: 5}",
     RS_RELOAD_LIGHT, "autoscaling_config"},
    {", num_replicas: auto", ", num_replicas: auto, autoscaling_config: {metrics_interval_s: 5}",
     RS_RELOAD_RECONFIGURE, "autoscaling_config"},
    {", num_replicas: auto",
     ", num_replicas: auto, autoscaling_config: {policy: {policy_function: x}}", RS_RELOAD_RESTART,
     "autoscaling_config"},
    {"", ", request_router_config: {max_backoff_s: 1}", RS_RELOAD_LIGHT, "request_router_config"},
    {"", ", request_router_config: {request_router_class: 'm:R'}", RS_RELOAD_RESTART,
     "request_router_config"},
    {"", ", version: v2", RS_RELOAD_RESTART, "version"},
    {"", ", max_replicas_per_node: 1", RS_RELOAD_RESTART, "max_replicas_per_node"},
    {", rserve: {kind: exec, command: ./a}", ", rserve: {kind: exec, command: ./b}",
     RS_RELOAD_RESTART, "rserve"},
    {", rserve: {kind: exec, command: ./a}", ", rserve: {kind: exec, command: ./a, calls: [B]}",
     RS_RELOAD_LIGHT, "rserve"},
    {", rserve: {kind: exec, command: ./a}",
     ", rserve: {kind: exec, command: ./a, ready: {timeout_s: 5}}", RS_RELOAD_CONTROLLER, "rserve"},
};

START_TEST(change)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *a =
        conf_of(changes[_i].before, NULL);
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *b =
        conf_of(changes[_i].after, NULL);
    rs_auto(rs_buf_fini) struct rs_buf fields = {0};
    bool heavy = changes[_i].bits & RS_RELOAD_RESTART;

    ck_assert_uint_eq(rs_deployment_conf_diff(a, b, &fields), changes[_i].bits);
    ck_assert_str_eq(rs_buf_text(&fields), changes[_i].fields);
    ck_assert_int_eq(rs_deployment_conf_heavy_hash(a) != rs_deployment_conf_heavy_hash(b), heavy);
}
END_TEST

RS_CHECK_MAIN("config_merge", tcase_add_test(tc, defaults);
              tcase_add_loop_test(tc, order_of_precedence, 0, RS_COUNT(precedence));
              tcase_add_loop_test(tc, replica_counts, 0, RS_COUNT(replicas));
              tcase_add_test(tc, autoscaling_fills);
              tcase_add_loop_test(tc, target_capacity, 0, RS_COUNT(capacities));
              tcase_add_test(tc, capacity_of_a_config); tcase_add_test(tc, runtime_env);
              tcase_add_test(tc, runtime_env_of_file_and_code);
              tcase_add_test(tc, logging_of_the_application); tcase_add_test(tc, extension);
              tcase_add_loop_test(tc, refuses, 0, RS_COUNT(refusals));
              tcase_add_loop_test(tc, warns, 0, RS_COUNT(doubts)); tcase_add_test(tc, details);
              tcase_add_test(tc, details_of_the_rest); tcase_add_test(tc, round_trip);
              tcase_add_loop_test(tc, from_json_refuses, 0, RS_COUNT(bad_json));
              tcase_add_loop_test(tc, change, 0, RS_COUNT(changes));)
