/* --help, written from the tables that parse. Everything fits 80 columns. */
#include "cmd/verb.h"
#include "core/base/buf.h"
#include "core/config/schema.h"

#include <stdio.h>
#include <string.h>

enum { COLUMNS = 80, VERB_COLUMN = 17, OPTION_COLUMN = 26 };

/* Words of `text` from column `at` on; the lines that follow begin at column `indent`. A newline in
 * the text ends the line; one that leads a line with two spaces keeps it as it is (an example).
 */
static void wrap(FILE *out, const char *text, int at, int indent)
{
    int col = at;

    while (*text) {
        size_t n = strcspn(text, " \n");

        if (n > 0 && col > indent && col + 1 + (int)n > COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            col = indent;
        } else if (n > 0 && col > indent) {
            fputc(' ', out);
            col++;
        }
        fwrite(text, 1, n, out);
        col += (int)n;
        text += n;
        if (*text == '\n') {
            size_t lead;

            text++;
            lead = strspn(text, " ");
            fprintf(out, "\n%*s", *text == '\n' ? 0 : indent + (int)lead, "");
            col = indent;
            if (lead > 0) {
                n = strcspn(text + lead, "\n");
                fwrite(text + lead, 1, n, out);
                text += lead + n;
            }
        } else if (*text) {
            text++;
        }
    }
    fputc('\n', out);
}

/* `left` in its column, then the wrapped text, on the next line if `left` is too wide. */
static void two_columns(FILE *out, const char *left, const char *text, int column)
{
    int n = fprintf(out, "  %s", left);

    if (n + 2 > column) {
        fputc('\n', out);
        n = 0;
    }
    fprintf(out, "%*s", column - n, "");
    wrap(out, text, column, column);
}

void rs_help_print(FILE *out)
{
    fputs("Usage: rserve VERB [OPTIONS] [ARGS]\n\n"
          "Serves Ray Serve applications without Ray.\n\n"
          "Verbs:\n",
          out);
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        two_columns(out, (*v)->name, (*v)->summary, VERB_COLUMN);
    fputs("\nOptions:\n", out);
    two_columns(out, "-h, --help", "print this", VERB_COLUMN);
    two_columns(out, "-V, --version", "as 'rserve version'", VERB_COLUMN);
    fputs("\n'rserve help VERB' tells more about a verb, 'rserve help config' every key of a\n"
          "configuration file.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage or invalid configuration.\n",
          out);
}

static void print_option(FILE *out, const struct rs_option *o)
{
    char left[80], text[1000];
    size_t n;

    snprintf(left, sizeof(left), "%c%c%c --%s%s%s", o->letter ? '-' : ' ',
             o->letter ? o->letter : ' ', o->letter ? ',' : ' ', o->name, o->value ? " " : "",
             o->value ? o->value : "");
    n = (size_t)snprintf(text, sizeof(text), "%s", o->help);
    if (o->kind == RS_OPT_LIST && n < sizeof(text))
        n += (size_t)snprintf(text + n, sizeof(text) - n, "; may be repeated");
    if (o->kind == RS_OPT_CHOICE)
        for (size_t i = 0; o->choices[i] && n < sizeof(text); i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? ", " : ": ",
                                  o->choices[i]);
    two_columns(out, left, text, OPTION_COLUMN);
}

/* "--a, --b and --c" as one paragraph. */
static void print_foreign(FILE *out, const struct rs_option *options, bool refused,
                          const char *title)
{
    struct rs_buf text = {0};

    for (const struct rs_option *o = options; o && o->name; o++)
        if (rs_option_is_foreign(o) && (o->kind == RS_OPT_REFUSED) == refused)
            rs_buf_printf(&text, "%s --%s", rs_buf_len(&text) ? "," : title, o->name);
    if (rs_buf_len(&text)) {
        fputc('\n', out);
        wrap(out, rs_buf_text(&text), 0, 0);
    }
    rs_buf_fini(&text);
}

static void print_group(const struct rs_verb *group, FILE *out)
{
    fprintf(out, "Usage: rserve %s VERB [OPTIONS] [ARGS]\n       %s VERB [OPTIONS] [ARGS]\n\n",
            group->name, group->name);
    wrap(out, group->summary, 0, 0);
    fputs("\nVerbs:\n", out);
    for (const struct rs_verb *const *v = group->verbs; *v; v++)
        two_columns(out, (*v)->name, (*v)->summary, VERB_COLUMN);
    fputs("\nOptions:\n", out);
    two_columns(out, "-h, --help", "print this", VERB_COLUMN);
    two_columns(out, "-V, --version", "print versions", VERB_COLUMN);
    if (group->details) {
        fputc('\n', out);
        wrap(out, group->details, 0, 0);
    }
    fputs("\nExit status: 0 done, 1 failed, 2 wrong usage.\n", out);
}

void rs_help_print_verb(const struct rs_verb *verb, FILE *out)
{
    char title[64];

    if (verb->verbs) {
        print_group(verb, out);
        return;
    }
    rs_verb_title(verb, title, sizeof(title));
    fprintf(out, "Usage: %s [OPTIONS]%s%s\n\n", title, verb->args[0] ? " " : "", verb->args);
    wrap(out, verb->summary, 0, 0);
    fputs("\nOptions:\n", out);
    for (const struct rs_option *o = verb->options; o && o->name; o++)
        if (!rs_option_is_foreign(o))
            print_option(out, o);
    two_columns(out, "-h, --help", "print this", OPTION_COLUMN);
    print_foreign(out, verb->options, false, "Taken for the sake of scripts, without effect:");
    print_foreign(out, verb->options, true, "Not supported:");
    if (verb->details) {
        fputc('\n', out);
        wrap(out, verb->details, 0, 0);
    }
    fputs("\nExit status: 0 done, 1 failed, 2 wrong usage or invalid configuration.\n", out);
}

struct help_options {
    bool markdown;
};

static const struct rs_option help_options[] = {
    {"markdown", 0, RS_OPT_FLAG, offsetof(struct help_options, markdown), NULL,
     "'help config' as the page docs/config.md"},
    {NULL},
};

static int run_help(int argc, char *argv[], struct rs_error *err)
{
    struct help_options o = {0};
    const struct rs_verb *verb;
    int n = rs_verb_parse(&rs_verb_help, argc, argv, &o, err);

    if (n < 0)
        return -1;
    if (n == 1 && strcmp(argv[1], "config") == 0) {
        rs_config_reference_print(stdout, o.markdown);
        return 0;
    }
    if (n == 0) {
        rs_help_print(stdout);
        return 0;
    }
    verb = rs_verb_find(NULL, argv[1]);
    if (!verb)
        return rs_verb_unknown(NULL, argv[1], "config", err);
    if (n == 2 && !verb->verbs)
        return rs_error_set(err, RS_INVALID, "'%s' has no verbs of its own", argv[1]);
    if (n == 2 && !rs_verb_find(verb, argv[2]))
        return rs_verb_unknown(verb, argv[2], NULL, err);
    rs_help_print_verb(n == 2 ? rs_verb_find(verb, argv[2]) : verb, stdout);
    return 0;
}

const struct rs_verb rs_verb_help = {
    .name = "help",
    .args = "[VERB [VERB]|config]",
    .summary = "tell more about a verb, or about the configuration file",
    .options = help_options,
    .max_args = 2,
    .run = run_help,
};
