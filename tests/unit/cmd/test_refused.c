#include "cmd/refused.h"
#include "tests/unit/check_main.h"

#include "core/base/json.h"

static const char metrics[] =
    "# HELP rserve_http_refused_requests_total x\n"
    "rserve_http_refused_requests_total{route=\"/\",application=\"a\",cause=\"timeout\"} 3.0\n"
    "rserve_http_refused_requests_total{route=\"/b\",application=\"a\",cause=\"timeout\"} 4.0\n"
    "rserve_http_refused_requests_total{route=\"/\",application=\"a\",cause=\"rate_limited\"} "
    "70.0\n"
    "rserve_http_refused_requests_total{route=\"\",application=\"\",cause=\"no_route\"} 9.0\n"
    "rserve_http_refused_requests_total{route=\"\",application=\"gone\",cause=\"timeout\"} 9.0\n"
    "rserve_http_refused_requests_total{route=\"/\",application=\"q\\\"\\\\ n\",cause=\"timeout\"} "
    "1.0\n"
    "rserve_http_refused_requests_total{route=\"/\",application=\"a\n"
    "rserve_http_refused_requests_total{\n"
    "ray_serve_num_http_requests_total{application=\"a\",cause=\"timeout\"} 100.0\n"
    "rserve_http_refused_requests_total{route=\"/\",application=\"a\",cause=\"cut off";

START_TEST(sums_by_cause)
{
    rs_auto(rs_json_decrefp) json_t *details =
        json_pack("{s:{s:{}, s:{}, s:{s:{s:i}}}}", "applications", "a", "other", "q\"\\ n",
                  "rserve", "kept", 1);
    json_t *apps = json_object_get(details, "applications"), *a, *q;

    rs_refused_add(details, metrics);
    a = json_object_get(json_object_get(json_object_get(apps, "a"), "rserve"), "refused");
    ck_assert_uint_eq(json_object_size(a), 2);
    ck_assert_int_eq(rs_json_int(a, "timeout", 0), 7);
    ck_assert_int_eq(rs_json_int(a, "rate_limited", 0), 70);
    ck_assert_uint_eq(json_object_size(json_object_get(apps, "other")), 0);
    q = json_object_get(json_object_get(apps, "q\"\\ n"), "rserve");
    ck_assert_int_eq(rs_json_int(q, "kept", 0), 1);
    ck_assert_int_eq(rs_json_int(json_object_get(q, "refused"), "timeout", 0), 1);
    ck_assert_uint_eq(json_object_size(apps), 3);
}
END_TEST

RS_CHECK_MAIN("refused", tcase_add_test(tc, sums_by_cause);)
