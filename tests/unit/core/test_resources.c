#include "core/resource/resources.h"
#include "tests/unit/check_main.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *text;
    int64_t want; /* -1: refused */
} fixed[] = {
    {"0", 0},
    {"0.5", 5000},
    {"2", 20000},
    {"0.0001", 1},
    {"1.", 10000},
    {".25", 2500},
    {"0.50000", 5000},
    {"007", 70000},
    {"1000000000", RS_FIXED_MAX},
    {"1000000001", -1},
    {"0.00001", -1},
    {"-1", -1},
    {"1e3", -1},
    {"", -1},
    {".", -1},
    {"1.2.3", -1},
    {"1 ", -1},
    {"+1", -1},
    {"99999999999999999999999", -1},
};

START_TEST(fixed_parse)
{
    struct rs_error err = {0};
    int64_t got = -1;
    int r = rs_fixed_parse(fixed[_i].text, &got, &err);

    ck_assert_int_eq(got, fixed[_i].want);
    ck_assert_int_eq(r == 0, err.msg[0] == '\0'); /* every failure says why */
}
END_TEST

static const struct {
    double v;
    int64_t want;
} doubles[] = {
    {0, 0},        {0.1, 1000},  {1.0 / 3, 3333}, {2.0 / 3, 6667}, {0.0001, 1},
    {0.00004, -1}, {-0.5, -1},   {NAN, -1},       {INFINITY, -1},  {1e9, RS_FIXED_MAX},
    {1.1e9, -1},   {0.29, 2900}, {1e-300, -1},
};

START_TEST(fixed_from_double)
{
    struct rs_error err = {0};
    int64_t got = -1;
    int r = rs_fixed_from_double(doubles[_i].v, &got, &err);

    ck_assert_int_eq(got, doubles[_i].want);
    ck_assert_int_eq(r == 0, err.msg[0] == '\0');
}
END_TEST

static const struct {
    int64_t v;
    const char *fixed, *memory;
} printed[] = {
    {0, "0", "0 bytes"},
    {1, "0.0001", "1 byte"},
    {5000, "0.5", "4.88 KiB"},
    {20000, "2", "19.53 KiB"},
    {12345, "1.2345", "12.06 KiB"},
    {-2500, "-0.25", "-2.44 KiB"},
    {INT64_C(1) << 30, "107374.1824", "1 GiB"},
    {INT64_C(3) << 29, "161061.2736", "1.5 GiB"},
};

START_TEST(prints)
{
    rs_auto(rs_buf_fini) struct rs_buf a = {0}, b = {0};

    rs_fixed_print(&a, printed[_i].v);
    rs_memory_print(&b, printed[_i].v);
    ck_assert_str_eq(rs_buf_text(&a), printed[_i].fixed);
    ck_assert_str_eq(rs_buf_text(&b), printed[_i].memory);
}
END_TEST

static json_t *json_of(const char *text)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);

    ck_assert_msg(j != NULL, "%s", text);
    return j;
}

static const struct {
    const char *json, *print; /* print NULL: refused, with `why` */
    const char *why;
} objects[] = {
    {"{}", "nothing", NULL},
    {"{\"CPU\": 2}", "2 CPU", NULL},
    {"{\"GPU\": 0.5, \"CPU\": 1.0}", "1 CPU, 0.5 GPU", NULL},
    {"{\"memory\": 2147483648, \"zeta\": 1, \"alpha\": 0.25}", "2 GiB memory, 0.25 alpha, 1 zeta",
     NULL},
    {"{\"disk\": 0}", "nothing", NULL},
    {"{\"memory\": 10.5}", "11 bytes memory", NULL},
    {"[]", NULL, "expected resources such as"},
    {"{\"CPU\": \"2\"}", NULL, "CPU: expected a number >= 0, got \"2\""},
    {"{\"CPU\": -1}", NULL, "CPU: expected a number from 0"},
    {"{\"GPU\": 1.5}", NULL, "GPU: expected a whole number above 1, got 1.5"},
    {"{\"memory\": -1}", NULL, "memory: expected a number of bytes"},
    {"{\"disk\": 0.00001}", NULL, "disk: expected 0 or at least 0.0001"},
    {"{\"\": 1}", NULL, "a resource needs a name"},
};

START_TEST(from_json)
{
    rs_auto(rs_json_decrefp) json_t *j = json_of(objects[_i].json);
    rs_auto(rs_resources_fini) struct rs_resources r = {0};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    struct rs_error err = {0};

    if (!objects[_i].print) {
        ck_assert_int_eq(rs_resources_from_json(&r, j, &err), -1);
        ck_assert_msg(strstr(err.msg, objects[_i].why) == err.msg, "%s", err.msg);
        ck_assert(rs_resources_empty(&r));
        return;
    }
    ck_assert_int_eq(rs_resources_from_json(&r, j, &err), 0);
    rs_resources_print(&text, &r);
    ck_assert_str_eq(rs_buf_text(&text), objects[_i].print);
}
END_TEST

static const struct {
    const char *json, *print, *why;
} options[] = {
    {"null", "1 CPU", NULL},
    {"{}", "1 CPU", NULL},
    {"{\"num_cpus\": null, \"num_gpus\": null, \"memory\": null}", "1 CPU", NULL},
    {"{\"num_cpus\": 0}", "nothing", NULL},
    {"{\"num_cpus\": 0.5, \"num_gpus\": 2, \"memory\": 1024, \"resources\": {\"disk\": 3}}",
     "0.5 CPU, 2 GPU, 1 KiB memory, 3 disk", NULL},
    {"{\"accelerator_type\": \"T4\"}", "1 CPU, 0.001 accelerator_type:T4", NULL},
    {"{\"num_gpus\": 2.5}", NULL, "num_gpus: expected a whole number above 1"},
    {"{\"num_cpus\": \"x\"}", NULL, "num_cpus: expected a number"},
    {"{\"memory\": true}", NULL, "memory: expected a number of bytes"},
    {"{\"resources\": {\"GPU\": 1}}", NULL, "resources: 'GPU' is asked for by num_gpus"},
    {"{\"resources\": {\"CPU\": 1}}", NULL, "resources: 'CPU' is asked for by num_cpus"},
    {"{\"resources\": {\"x\": -1}}", NULL, "resources: x: expected a number from 0"},
};

START_TEST(from_actor_options)
{
    rs_auto(rs_json_decrefp) json_t *j = json_of(options[_i].json);
    rs_auto(rs_resources_fini) struct rs_resources r = {0};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    struct rs_error err = {0};

    if (!options[_i].print) {
        ck_assert_int_eq(rs_resources_from_actor_options(&r, j, &err), -1);
        ck_assert_msg(strstr(err.msg, options[_i].why) == err.msg, "%s", err.msg);
        return;
    }
    ck_assert_int_eq(rs_resources_from_actor_options(&r, j, &err), 0);
    rs_resources_print(&text, &r);
    ck_assert_str_eq(rs_buf_text(&text), options[_i].print);
}
END_TEST

START_TEST(round_trip)
{
    rs_auto(rs_json_decrefp) json_t *j =
        json_of("{\"CPU\": 1.0, \"GPU\": 0.25, \"memory\": 77, \"a\": 2.0, \"b\": 0.5}");
    rs_auto(rs_json_decrefp) json_t *again = NULL;
    rs_auto(rs_resources_fini) struct rs_resources r = {0};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_resources_from_json(&r, j, &err), 0);
    again = rs_resources_json(&r);
    ck_assert(json_equal(j, again));
}
END_TEST

START_TEST(take_and_give)
{
    rs_auto(rs_resources_fini) struct rs_resources have = {.cpu = 20000, .memory = 100};
    rs_auto(rs_resources_fini) struct rs_resources want = {.cpu = 15000}, before = {0};

    rs_resources_set_custom(&have, "b", 10000);
    rs_resources_set_custom(&have, "a", 20000);
    rs_resources_set_custom(&want, "b", 10000);
    rs_resources_copy(&before, &have);
    ck_assert(rs_resources_take(&have, &want));
    ck_assert_int_eq(have.cpu, 5000);
    ck_assert_int_eq(rs_resources_custom(&have, "b"), 0);
    ck_assert_uint_eq(have.count, 1);
    ck_assert(!rs_resources_take(&have, &want));
    ck_assert_int_eq(have.cpu, 5000);
    rs_resources_give(&have, &want);
    ck_assert(rs_resources_equal(&have, &before));

    want.memory = 101;
    ck_assert(!rs_resources_take(&have, &want));
    ck_assert(rs_resources_equal(&have, &before));
    rs_resources_take_anyway(&have, &want);
    ck_assert_int_eq(have.memory, -1);
    rs_resources_give(&have, &want);
    ck_assert(rs_resources_equal(&have, &before));
}
END_TEST

/* A third taken three times and given back leaves nothing behind. */
START_TEST(exact)
{
    struct rs_resources have = {.cpu = RS_ONE}, want = {0};
    struct rs_error err = {0};

    ck_assert_int_eq(rs_fixed_from_double(1.0 / 3, &want.cpu, &err), 0);
    for (int i = 0; i < 3; i++)
        ck_assert(rs_resources_take(&have, &want));
    ck_assert(!rs_resources_take(&have, &want));
    for (int i = 0; i < 3; i++)
        rs_resources_give(&have, &want);
    ck_assert_int_eq(have.cpu, RS_ONE);
}
END_TEST

START_TEST(custom_stays_sorted)
{
    rs_auto(rs_resources_fini) struct rs_resources r = {0};
    static const char *const names[] = {"m", "a", "z", "b", "y"};

    for (size_t i = 0; i < RS_COUNT(names); i++)
        rs_resources_set_custom(&r, names[i], (int64_t)i + 1);
    for (size_t i = 1; i < r.count; i++)
        ck_assert_int_lt(strcmp(r.custom[i - 1].name, r.custom[i].name), 0);
    for (size_t i = 0; i < RS_COUNT(names); i++)
        ck_assert_int_eq(rs_resources_custom(&r, names[i]), (int64_t)i + 1);
    for (size_t i = 0; i < RS_COUNT(names); i++)
        rs_resources_set_custom(&r, names[i], 0);
    ck_assert(rs_resources_empty(&r));
}
END_TEST

RS_CHECK_MAIN("resources", tcase_add_loop_test(tc, fixed_parse, 0, RS_COUNT(fixed));
              tcase_add_loop_test(tc, fixed_from_double, 0, RS_COUNT(doubles));
              tcase_add_loop_test(tc, prints, 0, RS_COUNT(printed));
              tcase_add_loop_test(tc, from_json, 0, RS_COUNT(objects));
              tcase_add_loop_test(tc, from_actor_options, 0, RS_COUNT(options));
              tcase_add_test(tc, round_trip); tcase_add_test(tc, take_and_give);
              tcase_add_test(tc, exact); tcase_add_test(tc, custom_stays_sorted);)
