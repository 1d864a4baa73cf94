/* TARGET and REPORT: there and back, and what is refused. */
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/model/report.h"
#include "core/model/target.h"
#include "sched/agent-internal.h"
#include "tests/unit/check_main.h"

#include <string.h>

static struct rs_target *sample_target(void)
{
    struct rs_target *t = rs_target_new();
    struct rs_target_app *app;
    struct rs_target_deployment *d;

    t->revision = 7;
    t->populated = true;
    t->http.host = rs_strdup("127.0.0.1");
    t->http.port = 8000;
    t->http.root_path = rs_strdup("");
    t->http.keep_alive_timeout_s = 90;
    app = rs_target_add_app(t, "x");
    app->version = rs_strdup("v1");
    app->ingress = rs_strdup("A");
    app->import_path = rs_strdup("m:app");
    app->args = json_pack("{s:i}", "v", 1);
    app->runtime_env = json_object();
    d = rs_target_add_deployment(app, "A");
    d->version = rs_strdup("h1");
    d->config = json_object();
    d->replicas = 2;
    d->ranks = rs_alloc(2 * sizeof(unsigned));
    d->ranks[1] = 3;
    d->world_size = 4;
    d->start_limit = 12;
    d->ingress = true;
    rs_target_add_remote(d, "n1", "10.0.0.1:7000", 2);
    return t;
}

START_TEST(target_there_and_back)
{
    rs_auto(rs_target_freep) struct rs_target *t = sample_target();
    rs_auto(rs_target_freep) struct rs_target *back = NULL;
    rs_auto(rs_json_decrefp) json_t *j = rs_target_to_json(t);
    rs_auto(rs_json_decrefp) json_t *again = NULL;
    struct rs_error err = {0};

    json_object_set_new(j, "from_the_future", json_true()); /* ignored */
    ck_assert_msg(rs_target_from_json(&back, j, &err) == 0, "%s", err.msg);
    again = rs_target_to_json(back);
    json_object_del(j, "from_the_future");
    ck_assert(json_equal(j, again));
    const struct rs_target_app *app = rs_target_app(back, "x");
    const struct rs_target_deployment *d = rs_target_deployment(app, "A");

    ck_assert_uint_eq(d->ranks[1], 3);
    ck_assert_str_eq(d->remotes[0].address, "10.0.0.1:7000");
    ck_assert_ptr_null(app->route_prefix);
    ck_assert_ptr_null(rs_target_app(back, "y"));
    ck_assert_ptr_null(rs_target_deployment(app, "B"));
}
END_TEST

/* A member of the sample is replaced (or removed, with NULL); the path ends at the member. */
static const struct {
    const char *path[6]; /* ends with NULL */
    const char *value;
    const char *says; /* NULL: fine */
} changes[] = {
    {{"revision"}, "\"seven\"", "target.revision: expected an integer >= 0, got text"},
    {{"revision"}, "-1", "target.revision"},
    {{"populated"}, "1", "target.populated: expected true or false, got an integer"},
    {{"http"}, NULL, "target.http: expected an object, got nothing"},
    {{"http", "port"}, "8000.5", "target.http.port"},
    {{"http", "host"}, "null", NULL},
    {{"applications"}, "{}", "applications: expected an array, got an object"},
    {{"applications"}, "[1]", "application: expected an object, got an integer"},
    {{"applications", "0", "name"}, NULL, "application.name: expected text that is not empty"},
    {{"applications", "0", "name"}, "\"\"", "application.name"},
    {{"applications", "0", "args"}, "[]", "application.args: expected an object, got an array"},
    {{"applications", "0", "args"}, NULL, NULL},
    {{"applications", "0", "deployments", "0", "replicas"}, "4294967296", "deployment.replicas"},
    {{"applications", "0", "deployments", "0", "replicas"}, "3", "A: expected 3 ranks, got 2"},
    {{"applications", "0", "deployments", "0", "ranks"}, "[0, -2]", "ranks[1]"},
    {{"applications", "0", "deployments", "0", "remotes"}, "[{}]", "remote.node_id"},
    {{"applications", "0", "deployments", "0", "remotes"}, NULL, NULL},
};

START_TEST(target_is_checked)
{
    rs_auto(rs_target_freep) struct rs_target *t = sample_target();
    rs_auto(rs_target_freep) struct rs_target *back = NULL;
    rs_auto(rs_json_decrefp) json_t *j = rs_target_to_json(t);
    json_t *at = j;
    struct rs_error err = {0};
    int depth = 0;

    for (; changes[_i].path[depth + 1]; depth++)
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(changes[_i].path[depth]))
                               : json_object_get(at, changes[_i].path[depth]);
    if (changes[_i].value)
        json_object_set_new(at, changes[_i].path[depth],
                            json_loads(changes[_i].value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(at, changes[_i].path[depth]);
    int r = rs_target_from_json(&back, j, &err);

    if (!changes[_i].says) {
        ck_assert_msg(r == 0, "%s", err.msg);
        return;
    }
    ck_assert_int_eq(r, -1);
    ck_assert_ptr_null(back);
    ck_assert_msg(strstr(err.msg, changes[_i].says) != NULL, "%s", err.msg);
}
END_TEST

START_TEST(report_there_and_back)
{
    rs_auto(rs_report_freep) struct rs_report *r = rs_report_new();
    rs_auto(rs_report_freep) struct rs_report *back = NULL;
    struct rs_error err = {0};

    r->revision = 3;
    r->resources = json_pack("{s:f}", "CPU", 2.0);
    for (int s = 0; s < RS_REPLICA_STATE_COUNT; s++) {
        struct rs_report_replica *rr = rs_report_add_replica(r);

        *rr = (struct rs_report_replica){.app = rs_strdup("x"),
                                         .deployment = rs_strdup("A"),
                                         .replica_id = rs_asprintf("r%d", s),
                                         .version = rs_strdup("h1"),
                                         .state = (enum rs_replica_state)s,
                                         .pid = 100 + s,
                                         .start_time_s = 1.5,
                                         .done = UINT64_C(1) << 40};
    }
    *rs_report_add_deployment(r) = (struct rs_report_deployment){
        .app = rs_strdup("x"),
        .name = rs_strdup("A"),
        .version = rs_strdup("h1"),
        .ever_ran = true,
        .last_error = rs_strdup("Traceback\nValueError: caf\xc3\xa9")};
    *rs_report_add_zygote(r) = (struct rs_report_zygote){
        .app = rs_strdup("x"), .version = rs_strdup("v"), .state = rs_strdup("ready"), .pid = 9};
    rs_auto(rs_json_decrefp) json_t *j = rs_report_to_json(r);

    ck_assert_msg(rs_report_from_json(&back, j, &err) == 0, "%s", err.msg);
    rs_auto(rs_json_decrefp) json_t *again = rs_report_to_json(back);

    ck_assert(json_equal(j, again));
    ck_assert_int_eq(rs_report_replica(back, "r3")->state, 3);
    ck_assert_ptr_null(rs_report_replica(back, "r99"));
    ck_assert_ptr_nonnull(rs_report_deployment(back, "x", "A"));
    ck_assert_ptr_null(rs_report_deployment(back, "y", "A"));
    json_object_set_new(json_array_get(json_object_get(j, "replicas"), 0), "state",
                        json_string("DANCING"));
    rs_report_free(rs_steal(back));
    ck_assert_int_eq(rs_report_from_json(&back, j, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "replicas.state: expected the name of a replica state"));
}
END_TEST

RS_CHECK_MAIN("model", tcase_add_test(tc, target_there_and_back);
              tcase_add_loop_test(tc, target_is_checked, 0, RS_COUNT(changes));
              tcase_add_test(tc, report_there_and_back);)
