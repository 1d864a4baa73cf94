/* The reference page, from the tables alone: for a terminal of 80 columns, or as markdown. */
#include "core/config/schema.h"

#include "core/base/text.h"
#include "core/config/fields.h"

#include <string.h>

enum { WIDTH = 80, INDENT = 4 };

static const char *change_name(const struct rs_field *f)
{
    switch (f->reload) {
    case RS_RELOAD_RESTART:
        return "restart";
    case RS_RELOAD_RECONFIGURE:
        return "reconfigure";
    case RS_RELOAD_CONTROLLER:
    case RS_RELOAD_LIGHT:
        return "live";
    case RS_RELOAD_NONE:
        break;
    }
    return "";
}

static void print_values(struct rs_buf *out, const struct rs_field *f)
{
    rs_field_expects(out, f);
    if (f->flags & RS_F_NULL && f->type != RS_TYPE_ANY)
        rs_buf_puts(out, " or null");
}

/* "required", "default 5", or "" where there is neither. */
static void print_default(struct rs_buf *out, const struct rs_field *f)
{
    if (f->flags & RS_F_REQUIRED)
        rs_buf_puts(out, "required");
    else if (f->def)
        rs_buf_printf(out, "default %s", f->def);
    else if (f->flags & RS_F_NULL && !(f->flags & RS_F_INHERIT))
        rs_buf_puts(out, "default null");
}

static void print_meaning(struct rs_buf *out, const struct rs_field *f)
{
    if (f->flags & RS_F_FORBIDDEN)
        rs_buf_printf(out, "Not allowed: %s.", f->help);
    else if (f->alias_of)
        rs_buf_printf(out, "Legacy name of %s. %s", f->alias_of, f->help);
    else
        rs_buf_puts(out, f->help);
    if (f->flags & RS_F_INERT)
        rs_buf_puts(out, " Not acted upon yet.");
}

static void wrap(FILE *out, const char *text, size_t indent)
{
    rs_auto(rs_buf_fini) struct rs_buf b = {0};

    rs_text_wrap(&b, text, indent, WIDTH);
    fputs(rs_buf_text(&b), out);
}

static void plain_field(FILE *out, const struct rs_field *f)
{
    rs_auto(rs_buf_fini) struct rs_buf facts = {0}, meaning = {0}, def = {0};

    print_values(&facts, f);
    print_default(&def, f);
    if (rs_buf_len(&def))
        rs_buf_printf(&facts, "; %s", rs_buf_text(&def));
    if (*change_name(f))
        rs_buf_printf(&facts, "; change: %s", change_name(f));
    print_meaning(&meaning, f);
    fprintf(out, "  %s\n", f->name);
    wrap(out, rs_buf_text(&facts), INDENT + 2);
    wrap(out, rs_buf_text(&meaning), INDENT + 2);
}

static void plain_object(FILE *out, const struct rs_object *o)
{
    fprintf(out, "\n%s\n", *o->place ? o->place : "TOP LEVEL");
    wrap(out, o->intro, 2);
    fputs("\n", out);
    for (size_t i = 0; i < o->count; i++)
        plain_field(out, &o->fields[i]);
}

/* A table cell: no bars, and braces as they are. */
static void cell(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void markdown_field(FILE *out, const struct rs_field *f, bool with_change)
{
    rs_auto(rs_buf_fini) struct rs_buf type = {0}, meaning = {0};

    print_values(&type, f);
    print_meaning(&meaning, f);
    fprintf(out, "| `%s` | ", f->name);
    cell(out, rs_buf_text(&type));
    if (f->flags & RS_F_REQUIRED)
        fputs(" | required | ", out);
    else if (f->def)
        fprintf(out, " | `%s` | ", f->def);
    else
        fputs(f->flags & RS_F_NULL && !(f->flags & RS_F_INHERIT) ? " | `null` | " : " | | ", out);
    if (with_change)
        fprintf(out, "%s%s| ", change_name(f), *change_name(f) ? " " : "");
    cell(out, rs_buf_text(&meaning));
    fputs(" |\n", out);
}

static void markdown_object(FILE *out, const struct rs_object *o)
{
    bool with_change = false;

    for (size_t i = 0; i < o->count; i++)
        with_change = with_change || o->fields[i].reload != RS_RELOAD_NONE;
    fprintf(out, "\n## %s%s%s\n\n%s\n\n", *o->place ? "`" : "", *o->place ? o->place : "Top level",
            *o->place ? "`" : "", o->intro);
    fputs(with_change
              ? "| key | value | default | change | meaning |\n| --- | --- | --- | --- | --- |\n"
              : "| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
          out);
    for (size_t i = 0; i < o->count; i++)
        markdown_field(out, &o->fields[i], with_change);
}

static const char *const opening[] = {
    "A configuration file is a ServeConfigV2 document as Ray Serve 2.60 reads it, in YAML or JSON. "
    "Anchors, aliases and merge keys work. Relative paths are relative to the file.",
    "Unknown keys are ignored with a warning, unless a section says otherwise. `rserve run --check "
    "FILE` tells all errors at once, each with line, column and key, and then every option in "
    "effect with its source: the file goes over the code, the code over the defaults.",
};

static const char example[] = "proxy_location: EveryNode\n"
                              "http_options:\n"
                              "  port: 8000\n"
                              "applications:\n"
                              "  - name: rag\n"
                              "    route_prefix: /\n"
                              "    import_path: rag:app        # rag.py beside this file\n"
                              "    deployments:\n"
                              "      - name: Generator         # over its decorator\n"
                              "        num_replicas: 2\n"
                              "        ray_actor_options: {num_gpus: 0.5}\n"
                              "      - name: embedder          # not in the code: any HTTP server\n"
                              "        rserve:\n"
                              "          kind: http\n"
                              "          command: llama-server --port {port} --embedding\n"
                              "          ready: {path: /health}\n";

static void plain_example(FILE *out)
{
    fputs("\n", out);
    for (const char *p = example; *p;) {
        size_t n = strcspn(p, "\n");

        fprintf(out, "    %.*s\n", (int)n, p);
        p += n + 1;
    }
}

void rs_config_reference_print(FILE *out, bool markdown)
{
    if (markdown)
        fputs(
            "# Configuration reference\n\n<!-- Written by `rserve help config --markdown`; a test "
            "compares. -->\n",
            out);
    for (size_t i = 0; i < RS_COUNT(opening); i++) {
        if (i || markdown)
            fputs("\n", out);
        if (markdown)
            fprintf(out, "%s\n", opening[i]);
        else
            wrap(out, opening[i], 0);
    }
    if (markdown)
        fprintf(out, "\n```yaml\n%s```\n", example);
    else
        plain_example(out);
    for (size_t i = 0; rs_objects[i]; i++) {
        if (markdown)
            markdown_object(out, rs_objects[i]);
        else
            plain_object(out, rs_objects[i]);
    }
}
