#include "cmd/options.h"
#include "tests/unit/check_main.h"

#include <jansson.h>
#include <string.h>

enum { ARGS_MAX = 10 };

struct values {
    bool check, verbose;
    const char *name;
    int64_t port, cpus, size, wait;
    int format;
    json_t *resources;
    struct rs_opt_list vars;
};

static const char *const formats[] = {"text", "json", NULL};

#define FIELD(name) offsetof(struct values, name)
static const struct rs_option options[] = {
    {"check", 'c', RS_OPT_FLAG, FIELD(check), NULL, "check"},
    {"verbose", 'v', RS_OPT_FLAG, FIELD(verbose), NULL, "verbose"},
    {"name", 'n', RS_OPT_STRING, FIELD(name), "NAME", "name"},
    {"port", 'p', RS_OPT_INT, FIELD(port), "PORT", "port", .min = 1, .max = 65535},
    {"num-cpus", 0, RS_OPT_FIXED, FIELD(cpus), "N", "cpus", .min = 0, .max = INT64_MAX},
    {"size", 0, RS_OPT_SIZE, FIELD(size), "SIZE", "size"},
    {"wait", 0, RS_OPT_DURATION, FIELD(wait), "TIME", "wait", .min = 0, .max = 60000000000},
    {"format", 0, RS_OPT_CHOICE, FIELD(format), "FORMAT", "format", .choices = formats},
    {"resources", 0, RS_OPT_JSON, FIELD(resources), "JSON", "resources"},
    {"var", 0, RS_OPT_LIST, FIELD(vars), "K=V", "variable"},
    {"theirs", 't', RS_OPT_IGNORED},
    {"their-flag", 'f', RS_OPT_IGNORED_FLAG},
    {"never", 0, RS_OPT_REFUSED, 0, NULL, "it makes no sense here"},
    {NULL},
};

static int count(char *const *argv)
{
    int n = 0;

    while (argv[n])
        n++;
    return n;
}

/* Parses a copy of `args`, which the caller may look at afterwards. */
static int parse(const char *const *args, char **argv, struct values *v, struct rs_error *err)
{
    argv[0] = (char[]){"verb"};
    for (int i = 0; i <= ARGS_MAX; i++) {
        argv[i + 1] = (char *)(uintptr_t)args[i];
        if (!args[i])
            break;
    }
    return rs_options_parse(options, count(argv), argv, v, err);
}

static const struct {
    const char *args[ARGS_MAX + 1];
    const char *positional[ARGS_MAX + 1];
    struct values want; /* without resources and vars */
} good[] = {
    {{NULL}, {NULL}, {.port = 8000}},
    {{"a", "-c", "b"}, {"a", "b"}, {.check = true, .port = 8000}},
    {{"--port", "1", "a"}, {"a"}, {.port = 1}},
    {{"--port=65535"}, {NULL}, {.port = 65535}},
    {{"-p", "80", "-p81"}, {NULL}, {.port = 81}},
    {{"-cv"}, {NULL}, {.check = true, .verbose = true, .port = 8000}},
    {{"-vp", "9"}, {NULL}, {.verbose = true, .port = 9}},
    {{"-cn-x"}, {NULL}, {.check = true, .name = "-x", .port = 8000}},
    {{"--name", "--port"}, {NULL}, {.name = "--port", .port = 8000}},
    {{"--name="}, {NULL}, {.name = "", .port = 8000}},
    {{"--", "--port", "-c"}, {"--port", "-c"}, {.port = 8000}},
    {{"-", "a:b"}, {"-", "a:b"}, {.port = 8000}},
    {{"--num-cpus", "0.5"}, {NULL}, {.port = 8000, .cpus = 5000}},
    {{"--num-cpus", "2"}, {NULL}, {.port = 8000, .cpus = 20000}},
    {{"--num-cpus", "0.0001"}, {NULL}, {.port = 8000, .cpus = 1}},
    {{"--size", "10"}, {NULL}, {.port = 8000, .size = 10}},
    {{"--size", "64K"}, {NULL}, {.port = 8000, .size = 65536}},
    {{"--size", "1.5GiB"}, {NULL}, {.port = 8000, .size = 1610612736}},
    {{"--size", "10MB"}, {NULL}, {.port = 8000, .size = 10000000}},
    {{"--wait", "2"}, {NULL}, {.port = 8000, .wait = 2000000000}},
    {{"--wait", "0.25s"}, {NULL}, {.port = 8000, .wait = 250000000}},
    {{"--wait=500ms"}, {NULL}, {.port = 8000, .wait = 500000000}},
    {{"--wait=1m"}, {NULL}, {.port = 8000, .wait = 60000000000}},
    {{"--format", "json"}, {NULL}, {.port = 8000, .format = 1}},
    {{"--theirs", "a", "b"}, {"b"}, {.port = 8000}},
    {{"--theirs=a", "-ta", "-t", "a", "b"}, {"b"}, {.port = 8000}},
    {{"--their-flag", "a"}, {"a"}, {.port = 8000}},
    {{"--their-flag=false", "-fc", "a"}, {"a"}, {.check = true, .port = 8000}},
};

START_TEST(accepts)
{
    char *argv[ARGS_MAX + 2] = {0};
    struct values v = {.port = 8000};
    const struct values *want = &good[_i].want;
    struct rs_error err = {0};
    int n = parse(good[_i].args, argv, &v, &err);

    ck_assert_msg(n >= 0, "%s", err.msg);
    ck_assert_int_eq(n, count((char *const *)(uintptr_t)good[_i].positional));
    for (int i = 0; i < n; i++)
        ck_assert_str_eq(argv[i + 1], good[_i].positional[i]);
    ck_assert_ptr_null(argv[n + 1]);
    ck_assert_int_eq(v.check, want->check);
    ck_assert_int_eq(v.verbose, want->verbose);
    ck_assert_pstr_eq(v.name, want->name);
    ck_assert_int_eq(v.port, want->port);
    ck_assert_int_eq(v.cpus, want->cpus);
    ck_assert_int_eq(v.size, want->size);
    ck_assert_int_eq(v.wait, want->wait);
    ck_assert_int_eq(v.format, want->format);
}
END_TEST

static const struct {
    const char *args[ARGS_MAX + 1];
    const char *want; /* the whole message */
} bad[] = {
    {{"--prot", "1"}, "unknown option '--prot'; did you mean '--port'?"},
    {{"--num_cpu=1"}, "unknown option '--num_cpu'; did you mean '--num-cpus'?"},
    {{"--hlep"}, "unknown option '--hlep'; did you mean '--help'?"},
    {{"--qqqqqqqq"}, "unknown option '--qqqqqqqq'; --help lists them all"},
    {{"-x"}, "unknown option '-x'; --help lists them all"},
    {{"-cx"}, "unknown option '-x'; --help lists them all"},
    {{"-c-port"}, "unknown option '--'; --help lists them all"},
    {{"--check=yes"}, "--check takes no value, got 'yes'"},
    {{"--port"}, "--port: expected PORT, got nothing"},
    {{"-cp"}, "--port: expected PORT, got nothing"},
    {{"--port", "two"}, "--port: expected an integer from 1 to 65535, got 'two'"},
    {{"--port", "0"}, "--port: expected an integer from 1 to 65535, got '0'"},
    {{"--port", "1.5"}, "--port: expected an integer from 1 to 65535, got '1.5'"},
    {{"--port", "80 "}, "--port: expected an integer from 1 to 65535, got '80 '"},
    {{"--port", "99999999999999999999"},
     "--port: expected an integer from 1 to 65535, got '99999999999999999999'"},
    {{"--num-cpus", "-1"}, "--num-cpus: expected a number with at most 4 decimals >= 0, got '-1'"},
    {{"--num-cpus", "0.00001"},
     "--num-cpus: expected a number with at most 4 decimals >= 0, got '0.00001'"},
    {{"--num-cpus", "1e3"},
     "--num-cpus: expected a number with at most 4 decimals >= 0, got '1e3'"},
    {{"--num-cpus", "."}, "--num-cpus: expected a number with at most 4 decimals >= 0, got '.'"},
    {{"--size", "10X"}, "--size: expected a size such as 64K or 1.5GiB, got '10X'"},
    {{"--size", "9000000T"}, "--size: expected a size such as 64K or 1.5GiB, got '9000000T'"},
    {{"--wait", "61"},
     "--wait: expected a duration such as 2, 500ms or 5m from 0 to 60 seconds, got '61'"},
    {{"--theirs"}, "--theirs: expected a value, got nothing"},
    {{"--their"}, "unknown option '--their'; --help lists them all"}, /* none of ours is near */
    {{"--never"}, "--never is not supported: it makes no sense here"},
    {{"--never=1"}, "--never is not supported: it makes no sense here"},
    {{"--never", "1"}, "--never is not supported: it makes no sense here"},
    {{"--format", "xml"}, "--format: expected text or json, got 'xml'"},
    {{"--resources", "[1]"},
     "--resources: expected a JSON object such as '{\"name\": 1}', got '[1]'"},
    {{"--resources", "{", "--var", "a"},
     "--resources: expected a JSON object such as "
     "'{\"name\": 1}', got '{': string or '}' expected near end "
     "of file"},
    {{"--var", "a", "--resources", "{}", "-x"}, "unknown option '-x'; --help lists them all"},
};

START_TEST(refuses)
{
    char *argv[ARGS_MAX + 2] = {0};
    struct values v = {.port = 8000};
    struct rs_error err = {0};

    ck_assert_int_eq(parse(bad[_i].args, argv, &v, &err), -1);
    ck_assert_int_eq(err.code, RS_INVALID);
    ck_assert_str_eq(err.msg, bad[_i].want);
    ck_assert_ptr_null(v.resources);
    ck_assert_ptr_null(v.vars.items);
}
END_TEST

START_TEST(json_and_lists)
{
    const char *args[] = {
        "--var=a=1", "--resources", "{\"x\": 1}", "--var", "b", "--resources={\"y\": 2}", NULL};
    char *argv[ARGS_MAX + 2] = {0};
    struct values v = {0};
    struct rs_error err = {0};

    ck_assert_int_eq(parse(args, argv, &v, &err), 0);
    ck_assert_uint_eq(v.vars.count, 2);
    ck_assert_str_eq(v.vars.items[0], "a=1");
    ck_assert_str_eq(v.vars.items[1], "b");
    ck_assert_ptr_null(json_object_get(v.resources, "x")); /* the last one counts */
    ck_assert_int_eq(json_integer_value(json_object_get(v.resources, "y")), 2);
    rs_options_fini(options, &v);
    ck_assert_ptr_null(v.resources);
    rs_options_fini(options, &v);
}
END_TEST

static const struct {
    const char *args[ARGS_MAX + 1];
    bool want;
} helps[] = {
    {{"--help"}, true},          {{"a", "-h"}, true},        {{"-c", "--help"}, true},
    {{"--bad", "--help"}, true}, {{"--", "--help"}, false},  {{"--name", "--help"}, false},
    {{"-n", "-h"}, false},       {{"--name=x", "-h"}, true}, {{NULL}, false},
};

START_TEST(help_is_found)
{
    char *argv[ARGS_MAX + 2] = {(char[]){"verb"}};

    for (int i = 0; helps[_i].args[i]; i++)
        argv[i + 1] = (char *)(uintptr_t)helps[_i].args[i];
    ck_assert_int_eq(rs_options_want_help(options, count(argv), argv), helps[_i].want);
}
END_TEST

RS_CHECK_MAIN("options", tcase_add_loop_test(tc, accepts, 0, RS_COUNT(good));
              tcase_add_loop_test(tc, refuses, 0, RS_COUNT(bad));
              tcase_add_test(tc, json_and_lists);
              tcase_add_loop_test(tc, help_is_found, 0, RS_COUNT(helps));)
