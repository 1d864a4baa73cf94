/* What a change of each option asks for: Ray's table of light and heavy options, with ours. */
#include "core/config/fields.h"
#include "tests/unit/check_main.h"

#include <string.h>

/* Of a new value: `R` new replicas, `A` a message to the running ones, `C` how they are looked after,
 * `L` nothing of a replica, `-` never compared, `o` its own keys say. */
static const struct {
    const char *name;
    char kind;
} options[] = {
    {"name", '-'},
    {"num_replicas", 'L'},
    {"max_ongoing_requests", 'A'},
    {"max_concurrent_queries", '-'},
    {"max_queued_requests", 'L'},
    {"backpressure_config", 'o'},
    {"user_config", 'A'},
    {"autoscaling_config", 'o'},
    {"graceful_shutdown_wait_loop_s", 'A'},
    {"graceful_shutdown_timeout_s", 'C'},
    {"health_check_period_s", 'C'},
    {"health_check_timeout_s", 'C'},
    {"ray_actor_options", 'R'},
    {"placement_group_bundles", 'R'},
    {"placement_group_strategy", 'R'},
    {"placement_group_bundle_label_selector", 'R'},
    {"max_replicas_per_node", 'R'},
    {"logging_config", 'A'},
    {"request_router_config", 'o'},
    {"gang_scheduling_config", 'R'},
    {"deployment_actors", 'R'},
    {"rolling_update_percentage", 'L'},
    {"max_surge_percent", 'L'},
    {"max_constructor_retry_count", 'C'},
    {"version", 'R'},
    {"rserve", 'o'},
    {"autoscaling_config.min_replicas", 'L'},
    {"autoscaling_config.initial_replicas", 'L'},
    {"autoscaling_config.max_replicas", 'L'},
    {"autoscaling_config.target_ongoing_requests", 'L'},
    {"autoscaling_config.target_num_ongoing_requests_per_replica", '-'},
    {"autoscaling_config.metrics_interval_s", 'A'},
    {"autoscaling_config.look_back_period_s", 'A'},
    {"autoscaling_config.smoothing_factor", 'L'},
    {"autoscaling_config.upscale_smoothing_factor", 'L'},
    {"autoscaling_config.downscale_smoothing_factor", 'L'},
    {"autoscaling_config.upscaling_factor", 'L'},
    {"autoscaling_config.downscaling_factor", 'L'},
    {"autoscaling_config.upscale_delay_s", 'L'},
    {"autoscaling_config.downscale_delay_s", 'L'},
    {"autoscaling_config.downscale_to_zero_delay_s", 'L'},
    {"autoscaling_config.aggregation_function", 'L'},
    {"autoscaling_config.policy", 'R'},
    {"request_router_config.request_router_class", 'R'},
    {"request_router_config.request_router_kwargs", 'A'},
    {"request_router_config.request_routing_stats_period_s", 'A'},
    {"request_router_config.request_routing_stats_timeout_s", 'A'},
    {"request_router_config.initial_backoff_s", 'L'},
    {"request_router_config.backoff_multiplier", 'L'},
    {"request_router_config.max_backoff_s", 'L'},
    {"backpressure_config.status_code", 'L'},
    {"backpressure_config.retry_after_s", 'L'},
    {"rserve.kind", 'R'},
    {"rserve.command", 'R'},
    {"rserve.env", 'R'},
    {"rserve.cwd", 'R'},
    {"rserve.port", 'R'},
    {"rserve.ready", 'o'},
    {"rserve.ready.path", 'C'},
    {"rserve.ready.timeout_s", 'C'},
    {"rserve.strip_prefix", 'R'},
    {"rserve.request_timeout_s", 'L'},
    {"rserve.shed", 'o'},
    {"rserve.priority_ageing_s", 'L'},
    {"rserve.calls", 'L'},
    {"rserve.rollout", 'o'},
    {"rserve.rollout.when_full", 'L'},
    {"rserve.rollout.pause_after", 'L'},
    {"rserve.rollout.min_ready_s", 'L'},
    {"rserve.rollout.deadline_s", 'L'},
};

static const struct rs_field *find(const char *path)
{
    const struct rs_object *o = &rs_object_deployment;
    const struct rs_field *f = NULL;

    for (const char *p = path; o;) {
        size_t n = strcspn(p, ".");
        char name[80] = "";

        ck_assert_uint_lt(n, sizeof(name));
        memcpy(name, p, n);
        f = rs_field_find(o, name);
        if (!p[n] || !f)
            break;
        o = f->object;
        p += n + 1;
    }
    ck_assert_msg(f != NULL, "%s", path);
    return f;
}

static char kind_of(const struct rs_field *f)
{
    if (f->alias_of || (f->flags & RS_F_REQUIRED && f->reload == RS_RELOAD_NONE))
        return '-';
    switch (f->reload) {
    case RS_RELOAD_RESTART:
        return 'R';
    case RS_RELOAD_RECONFIGURE:
        return 'A';
    case RS_RELOAD_CONTROLLER:
        return 'C';
    case RS_RELOAD_LIGHT:
        return 'L';
    case RS_RELOAD_NONE:
        break;
    }
    return f->type == RS_TYPE_OBJECT ? 'o' : '?';
}

START_TEST(kind)
{
    char got[2] = {kind_of(find(options[_i].name)), 0}, want[2] = {options[_i].kind, 0};

    ck_assert_msg(*got == *want, "%s: got %s, want %s", options[_i].name, got, want);
}
END_TEST

/* A key that nobody classified is a change that nobody thought of. */
static void classified(const struct rs_object *o)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct rs_field *f = &o->fields[i];

        ck_assert_msg(kind_of(f) != '?', "%s.%s", o->place, f->name);
        if (f->type == RS_TYPE_OBJECT && f->reload == RS_RELOAD_NONE)
            classified(f->object);
    }
}

START_TEST(every_key_has_a_kind)
{
    classified(&rs_object_deployment);
    for (size_t i = 0; i < rs_object_deployment.count; i++) {
        bool listed = false;

        for (size_t k = 0; k < RS_COUNT(options); k++)
            listed |= strcmp(options[k].name, rs_object_deployment.fields[i].name) == 0;
        ck_assert_msg(listed, "%s", rs_object_deployment.fields[i].name);
    }
}
END_TEST

/* --- rollout ------------------------------------------------------------------------------------- */

static struct rs_deployment_conf *conf_of(const char *rollout)
{
    char text[512];
    struct rs_deployment_conf *c = NULL;
    struct rs_error err = {0};
    json_t *j;

    snprintf(text, sizeof(text), "{\"name\": \"A\", \"rserve\": {\"rollout\": %s}}", rollout);
    j = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(j);
    ck_assert_msg(rs_deployment_conf_from_json(&c, j, &err) == 0, "%s", err.msg);
    json_decref(j);
    return c;
}

START_TEST(pauses)
{
    static const struct {
        const char *rollout;
        unsigned replicas;
        double percent;
    } cases[] = {
        {"{}", 0, 0},
        {"{\"pause_after\": null}", 0, 0},
        {"{\"pause_after\": 3}", 3, 0},
        {"{\"pause_after\": \"25%\"}", 0, 25},
        {"{\"pause_after\": \"12.5 %\"}", 0, 12.5},
        {"{\"pause_after\": \"100%\"}", 0, 100},
    };

    for (size_t i = 0; i < RS_COUNT(cases); i++) {
        rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = conf_of(cases[i].rollout);

        ck_assert_uint_eq(c->rollout.pause_replicas, cases[i].replicas);
        ck_assert_double_eq(c->rollout.pause_percent, cases[i].percent);
    }
}
END_TEST

START_TEST(canary_and_analysis)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c =
        conf_of("{\"when_full\": \"wait\", \"min_ready_s\": 2, \"deadline_s\": null,"
                " \"canary\": {\"steps\": [\"1%\", \"10 %\", 50], \"each\": \"5m\","
                " \"max_error_rate\": 0.01},"
                " \"analysis\": {\"max_p99_ratio\": 1.5}}");
    const struct rs_rollout_conf *r = &c->rollout;

    ck_assert_int_eq(r->when_full, RS_FULL_WAIT);
    ck_assert_int_eq(r->min_ready, INT64_C(2000000000));
    ck_assert_int_eq(r->deadline, -1);
    ck_assert(r->canary.enabled && r->analysis.enabled);
    ck_assert_uint_eq(r->canary.n_steps, 3);
    ck_assert_double_eq(r->canary.steps[0], 1);
    ck_assert_double_eq(r->canary.steps[1], 10);
    ck_assert_double_eq(r->canary.steps[2], 50);
    ck_assert_int_eq(r->canary.each, INT64_C(300000000000));
    ck_assert_double_eq(r->canary.max_error_rate, 0.01);
    ck_assert_double_lt(r->canary.max_p99_ratio, 0);
    ck_assert_double_eq(r->analysis.max_p99_ratio, 1.5);
    ck_assert_double_eq(r->analysis.max_error_rate, 0);
    ck_assert_int_eq(r->canary.min_requests, 50);
    ck_assert_int_eq(r->canary.too_few, RS_CANARY_WAIT);
    ck_assert_int_eq(r->analysis.min_requests, 100);
}
END_TEST

/* Nobody said anything: 25. Ray's 0 is what somebody has to say. */
START_TEST(surge)
{
    static const struct {
        const char *json;
        int want;
    } cases[] = {
        {"{\"name\": \"A\"}", 25},
        {"{\"name\": \"A\", \"max_surge_percent\": 0}", 0},
        {"{\"name\": \"A\", \"max_surge_percent\": 50}", 50},
    };

    for (size_t i = 0; i < RS_COUNT(cases); i++) {
        rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = NULL, *again = NULL;
        json_t *j = json_loads(cases[i].json, 0, NULL);
        struct rs_error err = {0};

        ck_assert_int_eq(rs_deployment_conf_from_json(&c, j, &err), 0);
        ck_assert_int_eq(rs_deployment_conf_from_json(&again, c->json, &err), 0);
        ck_assert_int_eq(c->max_surge_percent, cases[i].want);
        ck_assert_int_eq(again->max_surge_percent, cases[i].want); /* on the node, too */
        json_decref(j);
    }
}
END_TEST

RS_CHECK_MAIN("reload", tcase_add_loop_test(tc, kind, 0, RS_COUNT(options));
              tcase_add_test(tc, every_key_has_a_kind); tcase_add_test(tc, pauses);
              tcase_add_test(tc, canary_and_analysis); tcase_add_test(tc, surge);)
