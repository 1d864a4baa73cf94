/* What a configuration would do, and that a deploy does exactly that. */
#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/config/config.h"
#include "tests/unit/check_main.h"
#include "tests/unit/sched/world.h"

#include <stdarg.h>

static struct world w;

#define HEAD "applications:\n- name: x\n  import_path: m:app\n  route_prefix: /x\n"
#define A_OF(options) HEAD "  deployments:\n  - {name: A, " options "}\n"
#define ONE_GRAPH                                                                                  \
    "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": [{\"name\": \"A\", \"options\": "  \
    "{}, "                                                                                         \
    "\"calls\": []}]}"

static void open_with(struct behaviour *b, size_t n)
{
    world_open(&w, b, n);
    w.changes = json_array();
    world_join(&w, 0, "{\"CPU\": 8, \"GPU\": 2}");
}

static void teardown(void)
{
    json_decref(w.changes);
    w.changes = NULL;
    world_close(&w);
}

/* All that is told and would be kept, and what the nodes have. */
static char *state(void)
{
    struct rs_buf b = {0};
    rs_auto(rs_json_decrefp) json_t *all = rs_controller_details(w.controller, false, w.now);
    rs_auto(rs_json_decrefp) json_t *desired = rs_controller_desired(w.controller);
    rs_auto(rs_freep) char *one = rs_json_dump(json_object_get(all, "applications")),
                           *two = rs_json_dump(desired);

    rs_buf_printf(&b, "%s\n%s\n%zu %u\n%s", one, two, json_array_size(w.changes),
                  world_processes(&w), w.log);
    for (int i = 0; i < NODES; i++)
        rs_buf_puts(&b, w.nodes[i].routes ? w.nodes[i].routes : "");
    return rs_buf_steal(&b);
}

static void check_same(const char *before, const char *after)
{
    size_t n = 0, from;

    while (before[n] && before[n] == after[n])
        n++;
    from = n > 100 ? n - 100 : 0;
    ck_assert_msg(before[n] == after[n], "it is\n%.200s\nnot\n%.200s", after + from, before + from);
}

static json_t *result(uint64_t id)
{
    json_t *j = NULL;
    struct rs_error err = {0};

    ck_assert_msg(rs_controller_plan_result(w.controller, id, &j, &err) == 0, "%s", err.msg);
    return j;
}

static bool is_ready(const json_t *plan)
{
    return strcmp(rs_json_str(plan, "state", ""), "ready") == 0;
}

/* The plan of this configuration, built if it has to be; new. */
static json_t *plan_of(const char *yaml)
{
    uint64_t id = 0;
    json_t *j;

    ck_assert_int_eq(rs_controller_plan(w.controller, world_config(yaml), w.now, &id, NULL), 0);
    j = result(id);
    for (int i = 0; i < 1000 && !is_ready(j); i++) {
        json_decref(j);
        world_run(&w, 5 * RS_MS);
        j = result(id);
    }
    ck_assert(is_ready(j));
    return j;
}

/* "applications.0.deployments.0.change" */
static const json_t *at(const json_t *j, const char *path)
{
    char part[64];

    while (j && *path) {
        size_t n = strcspn(path, ".");

        snprintf(part, sizeof(part), "%.*s", (int)n, path);
        j = json_is_array(j) ? json_array_get(j, (size_t)atoi(part)) : json_object_get(j, part);
        path += n + (path[n] == '.');
    }
    return j;
}

static void check(const json_t *plan, const char *path, const char *want)
{
    rs_auto(rs_freep) char *got =
        json_dumps(at(plan, path), JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    rs_auto(rs_freep) char *all = json_dumps(plan, JSON_INDENT(1));

    ck_assert_msg(got && strcmp(got, want) == 0, "%s is %s, not %s in\n%s", path, got, want, all);
}

#define A "applications.0.deployments.0."

/* --- classes ------------------------------------------------------------------------------------- */

static const struct {
    const char *before, *after, *change, *field, *asks;
    int starts, stops;
} table[] = {
    {"num_replicas: 2", "num_replicas: 2", "\"unchanged\"", NULL, NULL, 0, 0},
    {"num_replicas: 2", "num_replicas: 4", "\"in place\"", "num_replicas", "in place", 2, 0},
    {"num_replicas: 3", "num_replicas: 1", "\"in place\"", "num_replicas", "in place", 0, 2},
    {"user_config: {a: 1}", "user_config: {a: 2}", "\"in place\"", "user_config", "reconfigure", 0,
     0},
    {"max_ongoing_requests: 5", "max_ongoing_requests: 6", "\"in place\"", "max_ongoing_requests",
     "reconfigure", 0, 0},
    {"max_queued_requests: 5", "max_queued_requests: 6", "\"in place\"", "max_queued_requests",
     "in place", 0, 0},
    {"health_check_period_s: 5", "health_check_period_s: 6", "\"in place\"",
     "health_check_period_s", "in place", 0, 0},
    {"autoscaling_config: {min_replicas: 1, max_replicas: 4}",
     "autoscaling_config: {min_replicas: 1, max_replicas: 5}", "\"in place\"",
     "autoscaling_config.max_replicas", "in place", 0, 0},
    {"num_replicas: 2, ray_actor_options: {num_cpus: 1}",
     "num_replicas: 3, ray_actor_options: {num_cpus: 0.5}", "\"rolling\"",
     "ray_actor_options.num_cpus", "restart", 3, 2},
    {"num_replicas: 1", "num_replicas: 1, ray_actor_options: {runtime_env: {env_vars: {X: '1'}}}",
     "\"rolling\"", "ray_actor_options.runtime_env", "restart", 1, 1},
    {"num_replicas: 1", "num_replicas: 2, placement_group_bundles: [{CPU: 1}]", "\"recreate\"",
     "placement_group_bundles", "restart", 2, 1},
};

START_TEST(classes)
{
    rs_auto(rs_freep) char *before =
        rs_asprintf(HEAD "  deployments:\n  - {name: A, %s}\n", table[_i].before);
    rs_auto(rs_freep) char *after =
        rs_asprintf(HEAD "  deployments:\n  - {name: A, %s}\n", table[_i].after);
    rs_auto(rs_json_decrefp) json_t *plan = NULL;
    char number[32];

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    world_apply(&w, before);
    world_run(&w, RS_SEC);
    plan = plan_of(after);
    check(plan, A "change", table[_i].change);
    snprintf(number, sizeof(number), "%d", table[_i].starts);
    check(plan, A "replicas.starts", number);
    snprintf(number, sizeof(number), "%d", table[_i].stops);
    check(plan, A "replicas.stops", number);
    check(plan, "applications.0.built", "false");
    check(plan, "fits", "true");
    if (!table[_i].field) {
        check(plan, A "fields", "[]");
        return;
    }
    ck_assert_str_eq(rs_json_str(at(plan, A "fields.0"), "field", ""), table[_i].field);
    ck_assert_str_eq(rs_json_str(at(plan, A "fields.0"), "asks", ""), table[_i].asks);
}
END_TEST

START_TEST(old_and_new_values)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    world_apply(&w, A_OF("num_replicas: 2, max_queued_requests: 7"));
    world_run(&w, RS_SEC);
    ck_assert_int_eq(rs_controller_scale(w.controller, "x", "A", 3, w.now, NULL), -1);
    plan = plan_of("applications:\n- name: x\n  import_path: m:app\n  route_prefix: /y\n"
                   "  deployments:\n  - {name: A, num_replicas: 3}\n");
    check(plan, A "fields",
          "[{\"asks\":\"in place\",\"field\":\"num_replicas\",\"new\":3,\"old\":2},"
          "{\"asks\":\"in place\",\"field\":\"max_queued_requests\",\"new\":-1,\"old\":7}]");
    check(plan, "applications.0.fields",
          "[{\"field\":\"route_prefix\",\"new\":\"/y\",\"old\":\"/x\"}]");
    check(plan, "applications.0.change", "\"deployed\"");
}
END_TEST

/* --- code ---------------------------------------------------------------------------------------- */

START_TEST(changed_code_is_built_for_the_plan_only)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;
    rs_auto(rs_freep) char *before = NULL, *after = NULL;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    world_apply(&w, A_OF("num_replicas: 2"));
    world_run(&w, RS_SEC);
    before = state();
    w.graph = "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": [{\"name\": \"A\", "
              "\"options\": {}, \"calls\": [\"B\"]}, {\"name\": \"B\", \"options\": "
              "{\"num_replicas\": 3}, \"calls\": []}]}";
    plan = plan_of("applications: [{name: x, import_path: 'm:next', route_prefix: /x}]");
    check(plan, "applications.0.built", "true");
    check(plan, A "change", "\"rolling\"");
    check(plan, A "fields.0",
          "{\"asks\":\"restart\",\"field\":\"import_path\",\"new\":\"m:next\",\"old\":\"m:app\"}");
    check(plan, "applications.0.deployments.1.change", "\"new\"");
    check(plan, "applications.0.deployments.1.replicas.starts", "3");
    world_run(&w, RS_SEC);
    after = state(); /* its zygote is gone again, too */
    check_same(before, after);
    ck_assert_uint_eq(w.builds, 2);
}
END_TEST

START_TEST(an_import_that_fails_is_part_of_the_plan)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    w.broken = "m:broken";
    world_apply(&w, HEAD);
    world_run(&w, RS_SEC);
    plan = plan_of("applications: [{name: x, import_path: 'm:broken', route_prefix: /x}, {name: y, "
                   "import_path: 'm:y', route_prefix: /y}]");
    check(plan, "applications.0.change", "\"failed\"");
    ck_assert_ptr_nonnull(
        strstr(rs_json_str(at(plan, "applications.0"), "error", ""), "ZeroDivisionError"));
    check(plan, "applications.1.change", "\"new\"");
    check(plan, "summary.failed", "1");
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
}
END_TEST

START_TEST(an_import_that_hangs)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;
    uint64_t id = 0;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    w.hangs = "m:hangs";
    ck_assert_int_eq(
        rs_controller_plan(w.controller,
                           world_config("applications: [{name: x, import_path: 'm:hangs', "
                                        "rserve: {build_timeout_s: 7}}, {name: y, import_path: "
                                        "'m:y', route_prefix: /y}]"),
                           w.now, &id, NULL),
        0);
    world_run(&w, 6 * RS_SEC);
    plan = result(id);
    ck_assert(!is_ready(plan));
    world_run(&w, 5 * RS_SEC);
    json_decref(plan);
    plan = result(id);
    ck_assert(is_ready(plan));
    ck_assert_ptr_nonnull(strstr(rs_json_str(at(plan, "applications.0"), "error", ""),
                                 "importing 'm:hangs' did not end within 7 s"));
    check(plan, "applications.1.change", "\"new\"");
    ck_assert_uint_eq(world_processes(&w), 0); /* neither zygote is left */
}
END_TEST

START_TEST(no_node_to_build_it)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;

    world_open(&w, NULL, 0);
    w.changes = json_array();
    plan = plan_of(HEAD);
    ck_assert_ptr_nonnull(strstr(rs_json_str(at(plan, "applications.0"), "note", ""),
                                 "no node is there to import the code"));
    check(plan, "applications.0.deployments", "[]");
    check(plan, "applications.0.built", "false");
}
END_TEST

START_TEST(too_many_plans)
{
    uint64_t id;
    struct rs_error err = {0};

    open_with(NULL, 0);
    w.hangs = "m:app";
    for (int i = 0; i < 16; i++)
        ck_assert_int_eq(rs_controller_plan(w.controller, world_config(HEAD), w.now, &id, &err), 0);
    ck_assert_int_eq(rs_controller_plan(w.controller, world_config(HEAD), w.now, &id, &err), -1);
    ck_assert_int_eq(err.code, RS_NO_ROOM);
    world_run(&w, 400 * RS_SEC); /* they time out, and are forgotten */
    ck_assert_int_eq(rs_controller_plan(w.controller, world_config(HEAD), w.now, &id, &err), 0);
}
END_TEST

/* --- room ---------------------------------------------------------------------------------------- */

START_TEST(what_does_not_fit)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;

    open_with(NULL, 0); /* 8 CPUs */
    w.graph = ONE_GRAPH;
    plan = plan_of(A_OF("num_replicas: 10"));
    check(plan, "fits", "false");
    check(plan, A "pending.replicas", "2");
    check(plan, A "nodes", "{\"n0\":8}");
    check(plan, "resources.peak.CPU", "10.0");
    check(plan, "resources.total.CPU", "8.0");
}
END_TEST

START_TEST(room_for_the_surge)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL, *full = NULL, *wait = NULL;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    world_apply(&w, A_OF("num_replicas: 4, max_surge_percent: 50"));
    world_run(&w, RS_SEC);
    plan =
        plan_of(A_OF("num_replicas: 4, max_surge_percent: 50, ray_actor_options: {num_cpus: 2}"));
    check(plan, A "change", "\"rolling\"");
    check(plan, A "surge.wanted", "2");
    check(plan, A "surge.fits", "2"); /* 4 CPUs are free, and two of them want so many */
    check(plan, A "surge.how", "\"surge\"");
    check(plan, A "gap", "false");
    check(plan, "resources.now.CPU", "4.0");
    check(plan, "fits", "true");
    world_apply(&w, A_OF("num_replicas: 1, ray_actor_options: {num_cpus: 8}"));
    world_run(&w, 60 * RS_SEC);
    ck_assert_str_eq(world_text(&w, "applications.x.status"), "RUNNING");
    full = plan_of(A_OF("num_replicas: 1, ray_actor_options: {num_cpus: 7}"));
    check(full, A "surge.fits", "0");
    check(full, A "surge.how", "\"stop_first\"");
    check(full, A "gap", "true"); /* the only one goes first */
    check(full, A "surge.why", "\"n0: needs 7 CPU; node has 8, 0 free\"");
    wait = plan_of(A_OF("num_replicas: 1, ray_actor_options: {num_cpus: 7}, rserve: {rollout: "
                        "{when_full: wait}}"));
    check(wait, A "surge.how", "\"wait\"");
    check(wait, A "gap", "false");
}
END_TEST

START_TEST(removed_and_new_applications)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    world_apply(&w, "applications: [{name: x, import_path: 'm:x', route_prefix: /x}, {name: y, "
                    "import_path: 'm:y', route_prefix: /y}]");
    world_run(&w, RS_SEC);
    plan = plan_of("applications: [{name: y, import_path: 'm:y', route_prefix: /y}, {name: z, "
                   "import_path: 'm:z', route_prefix: /z}]");
    check(plan, "applications.0.name", "\"y\"");
    check(plan, "applications.0.deployments.0.change", "\"unchanged\"");
    check(plan, "applications.1.change", "\"new\"");
    check(plan, "applications.2.name", "\"x\"");
    check(plan, "applications.2.change", "\"removed\"");
    check(plan, "applications.2.deployments.0.change", "\"removed\"");
    check(plan, "applications.2.deployments.0.replicas.stops", "1");
    check(plan, "summary.restarts", "0");
}
END_TEST

/* --- no_restart ---------------------------------------------------------------------------------- */

static const struct {
    const char *after, *says; /* NULL: it may be applied */
} restarts[] = {
    {A_OF("num_replicas: 2"), NULL},
    {A_OF("num_replicas: 5, user_config: {x: 1}"), NULL},
    {A_OF("num_replicas: 2, ray_actor_options: {num_cpus: 0.5}"),
     "2 replicas of deployment 'A' of application 'x' would be restarted, because "
     "ray_actor_options.num_cpus changes from 1"},
    {"applications: [{name: x, import_path: 'm:other', route_prefix: /x}]",
     "2 replicas of deployment 'A' of application 'x' would be restarted, because import_path "
     "changes from \"m:app\" to \"m:other\""},
    {"applications: [{name: y, import_path: 'm:other', route_prefix: /x}]", NULL},
};

START_TEST(no_restart)
{
    rs_auto(rs_config_freep) struct rs_config *config = NULL;
    rs_auto(rs_freep) char *before = NULL, *after = NULL;
    struct rs_error err = {0};
    int r;

    open_with(NULL, 0);
    w.graph = ONE_GRAPH;
    world_apply(&w, A_OF("num_replicas: 2, ray_actor_options: {num_cpus: 1}"));
    world_run(&w, RS_SEC);
    json_array_clear(w.changes);
    config = world_config(restarts[_i].after);
    before = state();
    r = rs_controller_check_restarts(w.controller, config, &err);
    json_array_clear(w.changes); /* a refusal is told */
    after = state();
    check_same(before, after);
    ck_assert_msg((r < 0) == (restarts[_i].says != NULL), "%s", err.msg);
    if (restarts[_i].says) {
        ck_assert_int_eq(err.code, RS_CONFLICT);
        ck_assert_msg(strstr(err.msg, restarts[_i].says) != NULL, "%s", err.msg);
    }
}
END_TEST

/* --- apply does what plan said ------------------------------------------------------------------- */

static uint64_t seed;

static unsigned draw(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % n;
}

/* So many of `names`, with options that the code sets. */
static char *random_graph(void)
{
    static const char *const names[] = {"A", "B", "C"};
    struct rs_buf b = {0};
    unsigned n = 1 + draw(3);

    rs_buf_puts(&b, "{\"ingress\": \"A\", \"start\": \"fork\", \"deployments\": [");
    for (unsigned i = 0; i < n; i++)
        rs_buf_printf(&b,
                      "%s{\"name\": \"%s\", \"options\": {\"max_ongoing_requests\": %u}, "
                      "\"calls\": [%s%s%s]}",
                      i ? ", " : "", names[i], 5 + draw(2), i + 1 < n ? "\"" : "",
                      i + 1 < n ? names[i + 1] : "", i + 1 < n ? "\"" : "");
    rs_buf_puts(&b, "]}");
    return rs_buf_steal(&b);
}

static void random_deployment(struct rs_buf *b, const char *name)
{
    rs_buf_printf(b, "  - {name: %s", name);
    if (draw(4) == 0)
        rs_buf_printf(b, ", autoscaling_config: {min_replicas: %u, max_replicas: 4}", 1 + draw(2));
    else if (draw(2))
        rs_buf_printf(b, ", num_replicas: %u", 1 + draw(4));
    if (draw(3) == 0)
        rs_buf_printf(b, ", user_config: {v: %u}", draw(2));
    if (draw(3) == 0)
        rs_buf_printf(b, ", max_queued_requests: %u", 10 + draw(2));
    if (draw(3) == 0)
        rs_buf_printf(b, ", max_surge_percent: %u", 50 * draw(3));
    if (draw(5) == 0)
        rs_buf_printf(b, ", placement_group_bundles: [{CPU: %u}]", 1 + draw(2));
    else if (draw(2))
        rs_buf_printf(b, ", ray_actor_options: {num_cpus: %s}", draw(2) ? "0.5" : "0.25");
    rs_buf_puts(b, "}\n");
}

/* Only names that its graph has may be overridden: those of the ingress always do. */
static char *random_config(void)
{
    static const char *const names[] = {"x", "y", "z"};
    struct rs_buf b = {0};
    unsigned first = draw(3), n = 1 + draw(3);

    rs_buf_puts(&b, "applications:\n");
    for (unsigned i = 0; i < n; i++) {
        const char *name = names[(first + i) % 3];

        rs_buf_printf(&b, "- name: %s\n  import_path: m:v%u\n  route_prefix: /%s\n", name, draw(3),
                      name);
        rs_buf_puts(&b, "  deployments:\n");
        random_deployment(&b, "A");
    }
    return rs_buf_steal(&b);
}

static json_t *details(void)
{
    return rs_controller_details(w.controller, true, w.now);
}

/* Ids of the replicas that live, of `app` and `deployment`. New. */
static json_t *ids_of(const json_t *all, const char *app, const char *deployment)
{
    const json_t *d = json_object_get(
        json_object_get(json_object_get(json_object_get(all, "applications"), app), "deployments"),
        deployment);
    json_t *ids = json_object(), *r;
    size_t i;

    json_array_foreach (json_object_get(d, "replicas"), i, r)
        if (strcmp(rs_json_str(r, "state", ""), "STOPPING") != 0)
            json_object_set_new(ids, rs_json_str(r, "replica_id", ""), json_true());
    return ids;
}

static bool settled(void)
{
    rs_auto(rs_json_decrefp) json_t *all = details();
    json_t *app;
    const char *name;

    json_object_foreach (json_object_get(all, "applications"), name, app)
        if (strcmp(rs_json_str(app, "status", ""), "RUNNING") != 0)
            return false;
    return true;
}

static void settle(void)
{
    for (int i = 0; i < 400 && !settled(); i++)
        world_run(&w, RS_SEC);
    ck_assert_msg(settled(), "it does not settle: x %s, y %s, z %s: %s",
                  world_text(&w, "applications.x.status"), world_text(&w, "applications.y.status"),
                  world_text(&w, "applications.z.status"),
                  strlen(w.log) > 1000 ? w.log + strlen(w.log) - 1000 : w.log);
}

/* What happened to the replicas against what the plan said of them. */
static void compare_replicas(const json_t *plan, const json_t *before, const json_t *after,
                             const char *app)
{
    const char *name = rs_json_str(plan, "name", ""), *change = rs_json_str(plan, "change", "");
    rs_auto(rs_json_decrefp) json_t *a = ids_of(before, app, name), *b = ids_of(after, app, name);
    const json_t *replicas = json_object_get(plan, "replicas");
    int64_t starts = rs_json_int(replicas, "starts", -1),
            stops = rs_json_int(replicas, "stops", -1);
    int64_t started = 0, stopped = 0;
    const char *id;
    json_t *value;

    json_object_foreach (b, id, value)
        started += json_object_get(a, id) == NULL;
    json_object_foreach (a, id, value)
        stopped += json_object_get(b, id) == NULL;
    ck_assert_msg(started == starts && stopped == stops,
                  "%s#%s (%s): %d started, not %d; %d stopped, not %d", app, name, change,
                  (int)started, (int)starts, (int)stopped, (int)stops);
}

/* What was carried out: the event of this deployment; NULL: it was left alone. */
static const json_t *told_of(const char *app, const char *deployment)
{
    json_t *e;
    size_t i;

    json_array_foreach (w.changes, i, e)
        if (strcmp(rs_json_str(e, "app", ""), app) == 0 &&
            strcmp(rs_json_str(e, "deployment", ""), deployment) == 0)
            return e;
    return NULL;
}

static void compare_told(const json_t *plan, const char *app, bool app_goes)
{
    const char *name = rs_json_str(plan, "name", "");
    const json_t *e = told_of(app, name);
    const char *change = rs_json_str(plan, "change", "");

    if (strcmp(change, "unchanged") == 0 || app_goes) {
        ck_assert_msg(!e, "%s#%s was touched", app, name);
        return;
    }
    ck_assert_msg(e != NULL, "%s#%s: nothing was told of '%s'", app, name, change);
    ck_assert_int_eq(strcasecmp(rs_json_str(e, "status", ""), change), 0);
    ck_assert(json_equal(json_object_get(json_object_get(e, "data"), "fields"),
                         json_object_get(plan, "fields")));
}

static void compare(const json_t *plan, const json_t *before, const json_t *after)
{
    const json_t *app, *d;
    size_t i, k, told = 0;

    json_array_foreach (json_object_get(plan, "applications"), i, app) {
        const char *name = rs_json_str(app, "name", "");
        bool goes = strcmp(rs_json_str(app, "change", ""), "removed") == 0;

        json_array_foreach (json_object_get(app, "deployments"), k, d) {
            compare_replicas(d, before, after, name);
            compare_told(d, name, goes);
            told += told_of(name, rs_json_str(d, "name", "")) != NULL;
        }
    }
    ck_assert_uint_eq(told, json_array_size(w.changes)); /* and nothing besides */
}

/* So many replicas do not run as the plan said. */
static void compare_pending(const json_t *plan)
{
    rs_auto(rs_json_decrefp) json_t *after = details();
    const json_t *app, *d;
    size_t i, k;

    json_array_foreach (json_object_get(plan, "applications"), i, app)
        json_array_foreach (json_object_get(app, "deployments"), k, d) {
            const char *name = rs_json_str(d, "name", "");
            rs_auto(rs_json_decrefp) json_t *ids =
                ids_of(after, rs_json_str(app, "name", ""), name);
            int64_t wanted = rs_json_int(json_object_get(d, "replicas"), "after", -1);
            int64_t pending = rs_json_int(json_object_get(d, "pending"), "replicas", 0);

            ck_assert_msg((int64_t)json_object_size(ids) == wanted - pending,
                          "%s: %zu run, of %d, %d of which were to be pending", name,
                          json_object_size(ids), (int)wanted, (int)pending);
        }
}

START_TEST(apply_does_what_plan_said)
{
    char *graph = NULL;

    seed = (uint64_t)_i * 7919 + 1;
    open_with(NULL, 0);
    world_join(&w, 1, "{\"CPU\": 8}");
    for (int step = 0; step < 8; step++) {
        rs_auto(rs_freep) char *config = random_config(), *was = NULL, *is = NULL;
        rs_auto(rs_json_decrefp) json_t *plan = NULL, *before = NULL, *after = NULL;

        free(graph);
        w.graph = graph = random_graph();
        was = state();
        plan = plan_of(config);
        world_run(&w, RS_SEC);
        before = details();
        is = state();
        check_same(was, is); /* a plan changes nothing */
        json_array_clear(w.changes);
        world_apply(&w, config);
        if (!rs_json_bool(plan, "fits", true)) {
            world_run(&w, 400 * RS_SEC);
            ck_assert(!settled());
            compare_pending(plan);
            break;
        }
        settle();
        world_run(&w, 60 * RS_SEC);
        after = details();
        compare(plan, before, after);
    }
    free(graph);
}
END_TEST

RS_CHECK_MAIN("changes", tcase_add_checked_fixture(tc, NULL, teardown);
              tcase_add_loop_test(tc, classes, 0, RS_COUNT(table));
              tcase_add_test(tc, old_and_new_values);
              tcase_add_test(tc, changed_code_is_built_for_the_plan_only);
              tcase_add_test(tc, an_import_that_fails_is_part_of_the_plan);
              tcase_add_test(tc, an_import_that_hangs); tcase_add_test(tc, no_node_to_build_it);
              tcase_add_test(tc, too_many_plans); tcase_add_test(tc, what_does_not_fit);
              tcase_add_test(tc, room_for_the_surge);
              tcase_add_test(tc, removed_and_new_applications);
              tcase_add_loop_test(tc, no_restart, 0, RS_COUNT(restarts));
              tcase_add_loop_test(tc, apply_does_what_plan_said, 0, 8);)
