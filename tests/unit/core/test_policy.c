/* What an application asks of the ingress: reading it, and which route a request is on. */
#include "core/model/policy.h"
#include "tests/unit/check_main.h"

#include "core/base/json.h"

#include <string.h>

static struct rs_app_policy *policy(const char *text)
{
    rs_auto(rs_json_decrefp) json_t *j = json_loads(text, 0, NULL);
    struct rs_app_policy *p = NULL;
    struct rs_error err = {0};

    ck_assert_msg(j != NULL, "%s", text);
    ck_assert_msg(rs_app_policy_new(&p, j, &err) == 0, "%s", err.msg);
    return p;
}

static const char routes[] =
    "{\"priority\": 2, \"max_body\": 100, \"request_timeout_s\": 9.5,"
    " \"rate_limit\": {\"requests_per_s\": 2.5},"
    " \"routes\": ["
    " {\"path\": \"/v1\", \"priority\": 3, \"max_body\": null},"
    " {\"path\": \"/v1\", \"methods\": [\"GET\"], \"priority\": 4, \"idempotent\": true},"
    " {\"path\": \"/v1\", \"methods\": [\"HEAD\", \"PUT\"], \"priority\": 5},"
    " {\"path\": \"/v1/embed\", \"methods\": [\"POST\"], \"priority\": 6, \"rate_limit\": null},"
    " {\"path\": \"/v1/embed/big\", \"priority\": 7, \"request_timeout_s\": null,"
    "  \"rate_limit\": {\"requests_per_s\": 1, \"burst\": 5, \"key\": \"header:X-Api-Key\"}}]}";

static const struct {
    const char *method, *path;
    unsigned priority; /* each route has another one */
} finds[] = {
    {"GET", "/", 2},
    {"GET", "", 2},
    {"GET", "/v", 2},
    {"GET", "/v10", 2},
    {"GET", "/v1", 4},
    {"GET", "/v1/", 4},
    {"GET", "/v1/x", 4},
    {"HEAD", "/v1", 5},
    {"PUT", "/v1", 5},
    {"POST", "/v1", 3},
    {"get", "/v1", 3}, /* methods are case-sensitive */
    {"POST", "/v1/embed", 6},
    {"POST", "/v1/embedding", 3},
    {"GET", "/v1/embed", 4}, /* not its method: the shorter path counts */
    {"DELETE", "/v1/embed", 3},
    {"POST", "/v1/embed/big", 7},
    {"GET", "/v1/embed/big/er", 7},
    {"POST", "//v1", 2},
    {"POST", "*", 2},
};

START_TEST(finds_the_longest_path)
{
    rs_auto(rs_app_policy_freep) struct rs_app_policy *p = policy(routes);
    const struct rs_route_policy *r =
        rs_app_policy_find(p, finds[_i].path, strlen(finds[_i].path), finds[_i].method);

    ck_assert_msg(r->priority == finds[_i].priority, "%s %s: %u", finds[_i].method, finds[_i].path,
                  r->priority);
}
END_TEST

static const struct rs_route_policy *on(const struct rs_app_policy *p, const char *method,
                                        const char *path)
{
    return rs_app_policy_find(p, path, strlen(path), method);
}

START_TEST(routes_inherit)
{
    rs_auto(rs_app_policy_freep) struct rs_app_policy *p = policy(routes);
    const struct rs_route_policy *own = on(p, "GET", "/");
    const struct rs_route_policy *v1 = on(p, "POST", "/v1");
    const struct rs_route_policy *embed = on(p, "POST", "/v1/embed");
    const struct rs_route_policy *big = on(p, "POST", "/v1/embed/big");

    ck_assert_uint_eq(own->max_body, 100);
    ck_assert_uint_eq(v1->max_body, UINT64_MAX); /* null lifts */
    ck_assert_uint_eq(embed->max_body, 100);
    ck_assert_int_eq(v1->request_timeout, INT64_C(9500000000));
    ck_assert_int_eq(big->request_timeout, 0);
    ck_assert(!own->idempotent && on(p, "GET", "/v1")->idempotent);

    ck_assert_uint_eq(p->n_limits, 2);
    ck_assert_int_eq(v1->limit, own->limit); /* one bucket for both */
    ck_assert_int_eq(embed->limit, -1);
    ck_assert_int_ne(big->limit, own->limit);
    ck_assert_uint_eq(p->limits[own->limit].burst, 3); /* a second's worth */
    ck_assert_int_eq(p->limits[own->limit].key, RS_RATE_CLIENT);
    ck_assert_ptr_null(p->limits[own->limit].header);
    ck_assert_uint_eq(p->limits[big->limit].burst, 5);
    ck_assert_str_eq(p->limits[big->limit].header, "x-api-key");
}
END_TEST

START_TEST(nothing_is_the_default)
{
    rs_auto(rs_app_policy_freep) struct rs_app_policy *p = policy("{}");
    const struct rs_route_policy *r = on(p, "GET", "/any"), *d = &rs_route_policy_default;

    ck_assert_uint_eq(r->max_body, d->max_body);
    ck_assert_int_eq(r->request_timeout, -1);
    ck_assert_uint_eq(r->priority, 5);
    ck_assert_int_eq(r->limit, -1);
    ck_assert(!r->idempotent);
}
END_TEST

static const struct {
    const char *json, *says;
} bad[] = {
    {"{\"priority\": 10}", "priority: expected an integer from 0 to 9"},
    {"{\"priority\": \"5\"}", "priority"},
    {"{\"max_body\": -1}", "max_body"},
    {"{\"max_body\": 1.5}", "max_body"},
    {"{\"request_timeout_s\": \"5\"}", "request_timeout_s"},
    {"{\"idempotent\": 1}", "idempotent"},
    {"{\"rate_limit\": 5}", "rate_limit"},
    {"{\"rate_limit\": {\"requests_per_s\": 0}}", "rate_limit"},
    {"{\"rate_limit\": {\"requests_per_s\": 1, \"burst\": \"9\"}}", "rate_limit"},
    {"{\"rate_limit\": {\"requests_per_s\": 1, \"key\": \"cookie\"}}", "rate_limit"},
    {"{\"routes\": {}}", "routes: expected a list"},
    {"{\"routes\": [5]}", "path"},
    {"{\"routes\": [{\"path\": \"v1\"}]}", "path"},
    {"{\"routes\": [{\"path\": \"/v1\", \"methods\": [5]}]}", "methods"},
    {"{\"routes\": [{\"path\": \"/a\"}, {\"path\": \"/v1\", \"priority\": -1}]}", "priority"},
};

START_TEST(refuses)
{
    rs_auto(rs_json_decrefp) json_t *j = json_loads(bad[_i].json, 0, NULL);
    struct rs_app_policy *p = NULL;
    struct rs_error err = {0};

    ck_assert_msg(j != NULL, "%s", bad[_i].json);
    ck_assert_int_eq(rs_app_policy_new(&p, j, &err), -1);
    ck_assert_ptr_null(p);
    ck_assert_msg(strstr(err.msg, bad[_i].says) != NULL, "%s: %s", bad[_i].json, err.msg);
}
END_TEST

static const struct {
    const char *text;
    int want;
    const char *name;
} keys[] = {
    {"client", RS_RATE_CLIENT, NULL},
    {"all", RS_RATE_ALL, NULL},
    {"header:x-api-key", RS_RATE_HEADER, "x-api-key"},
    {"header:", -1, NULL},
    {"header", -1, NULL},
    {"header:a b", -1, NULL},
    {"header:a:b", -1, NULL},
    {"Client", -1, NULL},
    {"", -1, NULL},
};

START_TEST(rate_keys)
{
    const char *name = NULL;

    ck_assert_int_eq(rs_rate_key_parse(keys[_i].text, &name), keys[_i].want);
    ck_assert(keys[_i].name ? name && strcmp(name, keys[_i].name) == 0 : !name);
}
END_TEST

RS_CHECK_MAIN("policy", tcase_add_loop_test(tc, finds_the_longest_path, 0, RS_COUNT(finds));
              tcase_add_test(tc, routes_inherit); tcase_add_test(tc, nothing_is_the_default);
              tcase_add_loop_test(tc, refuses, 0, RS_COUNT(bad));
              tcase_add_loop_test(tc, rate_keys, 0, RS_COUNT(keys));)
