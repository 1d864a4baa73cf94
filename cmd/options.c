#include "cmd/options.h"

#include "core/base/alloc.h"
#include "core/base/nearest.h"
#include "core/base/quantity.h"
#include "core/resource/resources.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *what; /* in "expected ..." */
    const struct rs_unit *units;
    bool exact; /* no digit may be lost */
} numbers[] = {
    [RS_OPT_INT] = {"an integer", rs_units_one, true},
    [RS_OPT_FIXED] = {"a number with at most 4 decimals", NULL, true},
    [RS_OPT_SIZE] = {"a size such as 64K or 1.5GiB", rs_units_size, false},
    [RS_OPT_DURATION] = {"a duration such as 2, 500ms or 5m", rs_units_duration, false},
};

static bool read_value(enum rs_opt_kind kind, const char *text, int64_t *ret)
{
    if (kind == RS_OPT_FIXED)
        return rs_fixed_parse(text, ret, NULL) == 0;
    return rs_quantity_read(text, numbers[kind].units, numbers[kind].exact, ret);
}

/* The unit a range is told in, so that a refusal reads "from 1 to 65535" and "from 0 to 3600 s". */
static void print_range(char *buf, size_t size, const struct rs_option *o)
{
    double divide = 1;
    const char *suffix = "";

    if (o->kind == RS_OPT_FIXED)
        divide = 10000;
    if (o->kind == RS_OPT_DURATION) {
        divide = 1e9;
        suffix = " seconds";
    }
    if (o->kind == RS_OPT_SIZE)
        suffix = " bytes";
    if (o->max == INT64_MAX)
        snprintf(buf, size, " >= %.15g%s", (double)o->min / divide, suffix);
    else
        snprintf(buf, size, " from %.15g to %.15g%s", (double)o->min / divide,
                 (double)o->max / divide, suffix);
}

static int set_number(const struct rs_option *o, const char *text, int64_t *field,
                      struct rs_error *err)
{
    bool bounded = o->min != 0 || o->max != 0;
    char range[100] = "";
    int64_t value;

    if (bounded)
        print_range(range, sizeof(range), o);
    if (!read_value(o->kind, text, &value) || (bounded && (value < o->min || value > o->max)))
        return rs_error_set(err, RS_INVALID, "--%s: expected %s%s, got '%s'", o->name,
                            numbers[o->kind].what, range, text);
    *field = value;
    return 0;
}

static int set_choice(const struct rs_option *o, const char *text, int *field, struct rs_error *err)
{
    char list[300];
    size_t n = 0;

    for (int i = 0; o->choices[i]; i++)
        if (strcmp(o->choices[i], text) == 0) {
            *field = i;
            return 0;
        }
    for (size_t i = 0; o->choices[i] && n < sizeof(list); i++)
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s",
                              i == 0              ? ""
                              : o->choices[i + 1] ? ", "
                                                  : " or ",
                              o->choices[i]);
    return rs_error_set(err, RS_INVALID, "--%s: expected %s, got '%s'", o->name, list, text);
}

static int set_json(const struct rs_option *o, const char *text, json_t **field,
                    struct rs_error *err)
{
    json_error_t why;
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, &why);

    if (!json_is_object(value)) {
        json_decref(value);
        return rs_error_set(err, RS_INVALID,
                            "--%s: expected a JSON object such as '{\"name\": 1}', got '%s'%s%s",
                            o->name, text, value ? "" : ": ", value ? "" : why.text);
    }
    json_decref(*field);
    *field = value;
    return 0;
}

static void add_to_list(struct rs_opt_list *list, const char *text)
{
    list->items = rs_grow(list->items, &list->cap, list->count + 1, sizeof(*list->items));
    list->items[list->count++] = text;
}

bool rs_option_is_foreign(const struct rs_option *o)
{
    return o->kind == RS_OPT_IGNORED || o->kind == RS_OPT_IGNORED_FLAG || o->kind == RS_OPT_REFUSED;
}

/* The word after it is its value. */
static bool takes_value(const struct rs_option *o)
{
    return o->kind != RS_OPT_FLAG && o->kind != RS_OPT_IGNORED_FLAG && o->kind != RS_OPT_REFUSED;
}

static int set_value(const struct rs_option *o, const char *text, void *out, struct rs_error *err)
{
    void *field = (char *)out + o->offset;

    switch (o->kind) {
    case RS_OPT_FLAG:
        *(bool *)field = true;
        return 0;
    case RS_OPT_STRING:
        *(const char **)field = text;
        return 0;
    case RS_OPT_INT:
    case RS_OPT_FIXED:
    case RS_OPT_SIZE:
    case RS_OPT_DURATION:
        return set_number(o, text, field, err);
    case RS_OPT_CHOICE:
        return set_choice(o, text, field, err);
    case RS_OPT_JSON:
        return set_json(o, text, field, err);
    case RS_OPT_LIST:
        add_to_list(field, text);
        return 0;
    case RS_OPT_IGNORED:
    case RS_OPT_IGNORED_FLAG:
        return 0;
    case RS_OPT_REFUSED:
        return rs_error_set(err, RS_INVALID, "--%s is not supported: %s", o->name, o->help);
    }
    abort(); /* the table names a kind that is none */
}

static const struct rs_option *find_long(const struct rs_option *options, const char *name,
                                         size_t n)
{
    for (; options && options->name; options++)
        if (strncmp(options->name, name, n) == 0 && options->name[n] == '\0')
            return options;
    return NULL;
}

static const struct rs_option *find_letter(const struct rs_option *options, char letter)
{
    for (; options && options->name; options++)
        if (letter != '\0' && options->letter == letter)
            return options;
    return NULL;
}

static int unknown(const struct rs_option *options, const char *word, size_t n,
                   struct rs_error *err)
{
    char name[RS_NEAREST_MAX + 1] = "";
    struct rs_nearest near = rs_nearest_to(name);

    snprintf(name, sizeof(name), "%.*s", (int)n, word);
    for (const struct rs_option *o = options; o && o->name; o++)
        if (!rs_option_is_foreign(o))
            rs_nearest_offer(&near, o->name);
    rs_nearest_offer(&near, "help");
    if (near.best)
        return rs_error_set(err, RS_INVALID, "unknown option '--%.*s'; did you mean '--%s'?",
                            (int)n, word, near.best);
    return rs_error_set(err, RS_INVALID, "unknown option '--%.*s'; --help lists them all", (int)n,
                        word);
}

/* What one word of the command line holds. */
struct word {
    const struct rs_option *option; /* NULL: none, or more letters follow in `rest` */
    const char *value;              /* from the same word, or NULL */
    const char *rest;               /* letters still to be read, or NULL */
};

static int read_long(const struct rs_option *options, const char *arg, struct word *w,
                     struct rs_error *err)
{
    size_t n = strcspn(arg, "=");

    w->option = find_long(options, arg, n);
    if (!w->option)
        return unknown(options, arg, n, err);
    if (arg[n] == '=')
        w->value = arg + n + 1;
    if (w->value && w->option->kind == RS_OPT_FLAG)
        return rs_error_set(err, RS_INVALID, "--%s takes no value, got '%s'", w->option->name,
                            w->value);
    return 0;
}

static int read_letter(const struct rs_option *options, const char *arg, struct word *w,
                       struct rs_error *err)
{
    w->option = find_letter(options, arg[0]);
    if (!w->option)
        return rs_error_set(err, RS_INVALID, "unknown option '-%c'; --help lists them all", arg[0]);
    if (arg[1] == '\0')
        return 0;
    if (!takes_value(w->option))
        w->rest = arg + 1;
    else
        w->value = arg + 1;
    return 0;
}

/* The options in argv[*i], which begins with a dash, and the value in the word that follows. */
static int parse_word(const struct rs_option *options, char *argv[], int *i, void *out,
                      struct rs_error *err)
{
    const char *arg = argv[*i];
    struct word w = {.rest = arg + 1};

    while (w.rest) {
        const char *rest = w.rest;
        int r;

        w = (struct word){0};
        r = rest[0] == '-' && rest == arg + 1 ? read_long(options, rest + 1, &w, err)
                                              : read_letter(options, rest, &w, err);
        if (r < 0)
            return -1;
        if (takes_value(w.option) && !w.value) {
            w.value = argv[*i + 1];
            if (!w.value)
                return rs_error_set(err, RS_INVALID, "--%s: expected %s, got nothing",
                                    w.option->name, w.option->value ? w.option->value : "a value");
            ++*i;
        }
        if (set_value(w.option, w.value, out, err) < 0)
            return -1;
    }
    return 0;
}

int rs_options_parse(const struct rs_option *options, int argc, char *argv[], void *out,
                     struct rs_error *err)
{
    bool all_positional = false;
    int n = 0;

    for (int i = 1; i < argc; i++) {
        if (all_positional || argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[++n] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            all_positional = true;
        } else if (parse_word(options, argv, &i, out, err) < 0) {
            rs_options_fini(options, out);
            return -1;
        }
    }
    argv[n + 1] = NULL;
    return n;
}

void rs_options_fini(const struct rs_option *options, void *out)
{
    for (const struct rs_option *o = options; o && o->name; o++) {
        void *field;

        if (o->kind != RS_OPT_JSON && o->kind != RS_OPT_LIST)
            continue;
        field = (char *)out + o->offset;
        if (o->kind == RS_OPT_JSON) {
            json_decref(*(json_t **)field);
            *(json_t **)field = NULL;
        } else {
            free(((struct rs_opt_list *)field)->items);
            *(struct rs_opt_list *)field = (struct rs_opt_list){0};
        }
    }
}

bool rs_options_want_help(const struct rs_option *options, int argc, char *argv[])
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const struct rs_option *o = NULL;

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
        if (argv[i][0] != '-')
            continue;
        if (argv[i][1] == '-')
            o = find_long(options, argv[i] + 2, strlen(argv[i] + 2));
        else if (argv[i][1] != '\0' && argv[i][2] == '\0')
            o = find_letter(options, argv[i][1]);
        if (o && takes_value(o))
            i++; /* its value */
    }
    return false;
}
