/* The tables of all verbs, and Ray's command line (testdata/names/ray-2.60-cli.json) against them. */
#include "cmd/verb.h"
#include "core/base/json.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

static bool is_foreign(const struct rs_option *o)
{
    return rs_option_is_foreign(o);
}

static void check_option(const struct rs_verb *v, const struct rs_option *o)
{
    bool valued = o->kind != RS_OPT_FLAG && !is_foreign(o);

    for (const struct rs_option *other = v->options; other != o; other++) {
        ck_assert_msg(strcmp(other->name, o->name) != 0, "%s: --%s twice", v->name, o->name);
        ck_assert_msg(!o->letter || other->letter != o->letter, "%s: -%c twice", v->name,
                      o->letter);
    }
    ck_assert_msg(strspn(o->name, "abcdefghijklmnopqrstuvwxyz-") == strlen(o->name), "--%s",
                  o->name);
    ck_assert_msg(!valued || o->value, "%s: --%s has no word for its value", v->name, o->name);
    ck_assert_msg((o->kind == RS_OPT_IGNORED || o->kind == RS_OPT_IGNORED_FLAG) == !o->help,
                  "%s: the help of --%s", v->name, o->name);
}

static void check_verbs(const struct rs_verb *const *verbs, const char *group)
{
    for (; *verbs; verbs++) {
        const struct rs_verb *v = *verbs;

        ck_assert_msg(v->summary && *v->summary, "%s", v->name);
        ck_assert_msg(group ? v->of && strcmp(v->of, group) == 0 : !v->of, "%s", v->name);
        ck_assert_msg(v->verbs ? !v->run && !v->options : v->run != NULL, "%s", v->name);
        for (const struct rs_option *o = v->options; o && o->name; o++)
            check_option(v, o);
        if (v->verbs)
            check_verbs(v->verbs, v->name);
    }
}

START_TEST(tables)
{
    check_verbs(rs_verbs, NULL);
}
END_TEST

START_TEST(finding)
{
    const struct rs_verb *serve = rs_verb_find(NULL, "serve");
    struct rs_error err = {0};

    ck_assert_ptr_nonnull(serve);
    ck_assert_ptr_nonnull(rs_verb_find(serve, "deploy"));
    ck_assert_ptr_null(rs_verb_find(serve, "worker"));
    ck_assert_ptr_null(rs_verb_find(NULL, "shutdown"));
    ck_assert_int_eq(rs_verb_unknown(serve, "depoly", NULL, &err), -1);
    ck_assert_str_eq(err.msg, "unknown verb 'depoly'; did you mean 'deploy'?");
    ck_assert_int_eq(err.code, RS_INVALID);
    rs_verb_unknown(serve, "qqqqqqq", NULL, &err);
    ck_assert_str_eq(err.msg, "unknown verb 'qqqqqqq'; 'serve --help' lists the verbs");
    rs_verb_unknown(rs_verb_find(NULL, "ray"), "job", NULL, &err);
    ck_assert_msg(strstr(err.msg, "rserve has no 'ray job': ") == err.msg, "%s", err.msg);
    rs_verb_unknown(NULL, "--hlep", NULL, &err);
    ck_assert_str_eq(err.msg, "unknown option '--hlep'; did you mean '--help'?");
}
END_TEST

START_TEST(titles)
{
    char text[64];

    rs_verb_title(rs_verb_find(NULL, "run"), text, sizeof(text));
    ck_assert_str_eq(text, "rserve run");
    rs_verb_title(rs_verb_find(rs_verb_find(NULL, "ray"), "start"), text, sizeof(text));
    ck_assert_str_eq(text, "ray start");
}
END_TEST

/* --- Ray's ---------------------------------------------------------------------------------------- */

static json_t *reference(void)
{
    char path[500];
    json_t *value;

    snprintf(path, sizeof(path), "%s/testdata/names/ray-2.60-cli.json", getenv("RSERVE_SOURCE"));
    value = json_load_file(path, 0, NULL);
    ck_assert_ptr_nonnull(value);
    return value;
}

/* One spelling of an option, as it would be typed. Taken, or refused by name and with a reason. */
static void check_spelling(const struct rs_verb *v, const char *name, bool flag, const char *value)
{
    char verb[] = "verb", word[100], second[100];
    char *argv[] = {verb, word, flag ? NULL : second, NULL};
    rs_auto(rs_freep) char *out = calloc(1, 4096); /* larger than any struct of options */
    struct rs_error err = {0};
    int n;

    snprintf(word, sizeof(word), "%s", name);
    snprintf(second, sizeof(second), "%s", value);
    n = rs_options_parse(v->options, flag ? 2 : 3, argv, out, &err);
    if (n < 0)
        ck_assert_msg(strstr(err.msg, " is not supported: ") != NULL, "%s %s %s: %s", v->of,
                      v->name, name, err.msg);
    else
        ck_assert_msg(n == 0, "%s %s %s: it does not take its value", v->of, v->name, name);
    if (n >= 0)
        rs_options_fini(v->options, out);
}

static void check_command(const struct rs_verb *group, const char *name, json_t *options)
{
    const struct rs_verb *v = rs_verb_find(group, name);
    struct rs_error err = {0};
    json_t *option, *spelling;
    size_t i, k;

    if (!v) {
        rs_verb_unknown(group, name, NULL, &err);
        ck_assert_msg(strstr(err.msg, "rserve has no") == err.msg, "%s %s: %s", group->name, name,
                      err.msg);
        return;
    }
    json_array_foreach (options, i, option)
        json_array_foreach (json_array_get(option, 0), k, spelling)
            check_spelling(v, json_string_value(spelling), json_is_true(json_array_get(option, 1)),
                           json_string_value(json_array_get(option, 2)));
}

START_TEST(every_option_of_ray)
{
    rs_auto(rs_json_decrefp) json_t *all = reference();
    const char *group, *name;
    json_t *commands, *options;
    size_t seen = 0;

    json_object_foreach (all, group, commands)
        json_object_foreach (commands, name, options) {
            check_command(rs_verb_find(NULL, group), name, options);
            seen++;
        }
    ck_assert_uint_ge(seen, 15);
}
END_TEST

START_TEST(help_of_every_verb)
{
    for (const struct rs_verb *const *g = rs_verbs; *g; g++) {
        for (const struct rs_verb *const *v = (*g)->verbs; v && *v; v++) {
            char *text = NULL;
            size_t size = 0;
            FILE *out = open_memstream(&text, &size);

            rs_help_print_verb(*v, out);
            fclose(out);
            for (const struct rs_option *o = (*v)->options; o && o->name; o++) {
                char word[80];

                snprintf(word, sizeof(word), "--%s", o->name);
                ck_assert_msg(strstr(text, word) != NULL, "%s %s: %s", (*g)->name, (*v)->name,
                              word);
            }
            free(text);
        }
    }
}
END_TEST

RS_CHECK_MAIN("verbs", tcase_add_test(tc, tables); tcase_add_test(tc, finding);
              tcase_add_test(tc, titles); tcase_add_test(tc, every_option_of_ray);
              tcase_add_test(tc, help_of_every_verb);)
