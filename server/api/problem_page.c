/* problem_page.c: what the codes of errors mean, one page each: GET /problems/{code}.
 *
 * The `type` of every problem points here. A page says what happened and what to do about it; the problem itself has
 * the particulars. Codes of single faults in a spec or a file (the `errors` of a problem) are explained by their
 * `detail` and have no page.
 *
 * Threads: the connection's; the table is read-only.
 */
#include "api/api.h"

#include <string.h>

static const struct {
    int status;
    const char *code, *meaning;
} pages[] = {
    /* the request itself */
    {400, "ambiguous_framing",
     "The length of the body was given more than once. A proxy in between may be at fault."},
    {400, "bad_content_length", "Content-Length must be a decimal number."},
    {400, "bad_cursor", "`after` must be what a list gave as `next`; lists can be read from their start again."},
    {400, "bad_form", "A multipart body is broken: with curl use -F field=value or -F field=@file, each field once."},
    {400, "bad_header", "A header has characters that are not allowed, or a value that cannot be."},
    {400, "bad_host", "Host must be a name or an address, with an optional port."},
    {400, "bad_path", "The path has a broken percent escape, or an escaped slash, backslash or NUL."},
    {400, "bad_query", "A query key is unknown here, is given twice, or has a value out of range; see `allowed`."},
    {400, "bad_transfer_encoding", "The only Transfer-Encoding is chunked."},
    {400, "body_unexpected", "This call takes no body."},
    {400, "duplicate_header", "Host and Authorization are given at most once."},
    {400, "duplicate_key", "A JSON object has the same name twice; which one is meant cannot be known."},
    {400, "empty_body", "This call needs a body."},
    {400, "invalid_json",
     "The body is not JSON; line and column say where. Names and strings take double quotes, there "
     "are no comments, and no comma before a closing bracket."},
    {400, "invalid_query", "A query value is not understood; the detail says what is."},
    {400, "invalid_utf8", "Text must be UTF-8, without a byte order mark."},
    {400, "missing_host", "HTTP/1.1 wants a Host header."},
    {400, "too_deep", "JSON may be nested 32 levels deep."},
    {400, "too_many_members", "One JSON object may have 10000 members."},
    {400, "too_many_values", "One JSON text may have 2000000 values; send a dataset as a file instead."},
    {401, "unauthorized",
     "The server was started with --token-file; send the token: "
     "curl -H \"Authorization: Bearer $(cat TOKEN_FILE)\"."},
    {403, "host_not_allowed",
     "The Host header has a name that the server was not told of; this keeps web pages away "
     "from it. Start it with --allow-host NAME."},
    {403, "origin_not_allowed", "Requests from web pages of another origin are refused."},
    {404, "no_such_path", "There is nothing at this path; GET / lists what there is."},
    {404, "not_found", "There is no such job, dataset or checkpoint; the detail says where they are listed."},
    {405, "method_not_allowed", "The path exists, but not for this method; Allow says for which."},
    {406, "not_acceptable", "Neither Accept nor ?render= names a form that this can take; see `allowed`."},
    {413, "body_too_large", "The body is larger than `limit` bytes. For datasets the server has --max-upload."},
    {413, "too_large", "A part of the request is larger than it may be."},
    {414, "target_too_long", "Path and query may have 8192 bytes."},
    {415, "encoding_unsupported", "Content-Encoding is not accepted. A dataset file may be a gzip file itself."},
    {416, "range_outside",
     "The Range lies outside; Content-Range says how many bytes there are. A finished download "
     "continued with curl -C - ends here too."},
    {417, "expectation_failed", "The only Expect is 100-continue."},
    {501, "method_unknown", "Methods are GET, HEAD, POST, PUT, PATCH and DELETE, in capitals."},
    /* what it asks for */
    {409, "conflict", "The state of the thing does not allow this now."},
    {409, "illegal_transition",
     "The job's `job_status` does not allow this verb; `allowed` names those that it does."},
    {409, "in_use", "An active job uses the dataset; cancel it or wait for its end."},
    {409, "job_active", "Only an ended job can be deleted; cancel it first."},
    {409, "no_checkpoint",
     "The job has not stored a checkpoint yet; wait for its first epoch. One that ended before it has none."},
    {412, "exists", "If-None-Match: * forbids replacing what exists."},
    {413, "too_many_rows", "Too many rows in one request; send them in several."},
    {400, "ragged_row",
     "A row has more or fewer fields than the first. A field with the delimiter in it takes double quotes; line says "
     "where."},
    {400, "text_after_quote",
     "Something follows the quote that closes a field. A quote inside a quoted field is written twice."},
    {400, "unclosed_quote", "A quoted field is never closed; line says where it opens."},
    {422, "ambiguous_delimiter",
     "Several characters would divide the file equally well; say which with ?delimiter=comma, semicolon, tab or "
     "pipe."},
    {422, "ambiguous_header", "The first line may be names or data; say which with ?header=yes or ?header=no."},
    {422, "column_name_too_long", "A column's name is longer than 255 bytes. Is the first line a header at all?"},
    {422, "corrupt", "The data is damaged: a length, a magic number or a hash is wrong."},
    {422, "count_mismatch", "There must be as many inputs as targets."},
    {422, "duplicate_column", "Two columns have the same name; a spec could not tell them apart."},
    {422, "duplicate_part", "A form names the same part twice."},
    {422, "empty_column_name", "Every column needs a name in the header; or send ?header=no."},
    {422, "empty_dataset", "The file has no rows. With curl: -T FILE, and check that the file is not empty."},
    {422, "gzip_damaged", "The gzip file ends too early or is damaged; gunzip -t FILE tells too."},
    {422, "gzip_in_gzip", "The file was compressed twice; unfold it once."},
    {422, "idempotency_key_reused", "The Idempotency-Key was used with another body; take a new key for a new job."},
    {422, "field_too_long", "A field may have 1 MiB. Perhaps a quote before it is never closed."},
    {422, "idx_dimensions", "The dimensions of the IDX file are none that it may have."},
    {422, "idx_length", "The IDX file is longer or shorter than its dimensions say."},
    {422, "idx_magic", "The file does not begin as an IDX file of a known type does."},
    {422, "infinite_value", "A value is infinite; no network could learn from it."},
    {422, "invalid", "A value is not acceptable; the detail says which and why."},
    {422, "invalid_dataset", "The file could not be read as a dataset; the detail names line and column."},
    {422, "invalid_name",
     "Names have 1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or digit."},
    {422, "invalid_rows", "Rows are objects by column name, arrays in the order of the columns, or CSV."},
    {422, "invalid_spec",
     "The spec was read, but cannot be trained; `errors` lists every fault with its place (a JSON "
     "pointer) and, where there is one, a suggestion. Nothing was stored."},
    {422, "invalid_split", "A split is train, validation, test or all."},
    {422, "invalid_target",
     "The target that came with the row is none that the network could have learned; see `allowed`."},
    {422, "invalid_type", "A value has the wrong JSON type."},
    {422, "is_manifest", "The file is the description of a dataset of several parts, and not its data."},
    {422, "limit_exceeded", "A size is over a limit; the detail names both."},
    {422, "looks_like_xlsx", "The file is a spreadsheet or an archive: save the sheet as CSV and send that."},
    {422, "mismatch", "The data is sound, but belongs to another model, dataset or version."},
    {422, "missing_part", "The form lacks a part; the detail names those it needs."},
    {422, "newlines_gone",
     "All lines have become one: curl -d removes newlines. Send files with curl -T FILE or --data-binary @FILE."},
    {422, "no_columns", "The dataset has no column that could be used."},
    {422, "no_rows", "There are no rows to work on."},
    {422, "no_such_split", "The job's data has no such split."},
    {422, "nonfinite",
     "A loss or a result is not a finite number. Why that happens: GET /learn/exploding-gradients, "
     "/learn/learning-rate."},
    {422, "nonfinite_prediction",
     "The model overflows on these inputs; it gives no number that could be trusted. Are their columns in the "
     "units that it was trained on?"},
    {422, "not_utf8", "The file is not UTF-8 text; iconv -f LATIN1 -t UTF-8 converts an old one."},
    {422, "row_too_long", "A row is longer than a row may be. Perhaps a quote in it is never closed."},
    {422, "shape_mismatch", "The rows of the test part must have the shape of the others."},
    {422, "target_required",
     "An explanation is about a loss, and without the true value there is none: add \"target\" to the row."},
    {422, "too_many_columns", "A dataset may have 16384 columns."},
    {422, "too_many_points", "Ask for some of the series with names, or for their end with from_step."},
    {422, "unfolds_too_far", "The gzip file unfolds to more than the server's --max-upload."},
    {422, "unknown_field", "A member is not known; the suggestion is the nearest that is."},
    {422, "unknown_part", "The form has a part that is not known."},
    {422, "unsupported_format", "The file is of a format that is not read; the detail names those that are."},
    {422, "unsupported", "Known, but not available in this build."},
    {422, "unusable_target", "The target column has a value that the model cannot be judged by."},
    {429, "queue_full", "Too many jobs wait already; try again when some have ended."},
    /* the server's own state */
    {500, "corrupt_checkpoint", "A stored checkpoint is damaged; the disk should be looked at. Others may be sound."},
    {500, "internal", "A fault of ours. The request's id is in the server's log, with the cause."},
    {500, "out_of_memory", "Memory ran out; try again, or give the server more."},
    {503, "disk_failed",
     "The disk does not work as it should; the cause is in the server's log. What was acknowledged "
     "is safe."},
    {503, "draining", "The server is being stopped; try again in a moment. Nothing was stored."},
    {503, "not_ready", "The server is being started or stopped; try again in a moment."},
    {503, "out_of_memory", "Memory ran out; try again in a moment."},
    {503, "overloaded", "Too many requests at a time; try again in a moment."},
    {503, "shutting_down", "The server is being stopped; try again in a moment. Nothing was changed."},
    {503, "try_again", "Something else happened to the same data at the same time; send it again."},
    {507, "disk_full", "The disk is full. Nothing was stored; free some space and send it again."},
};

void bp_api_problem_page(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    const char *code = bp_request_arg(request, 0);
    (void)arg;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (strcmp(pages[i].code, code))
            continue;
        bp_reply_text(reply, 200, "%s (status %d)\n\n%s\n", code, pages[i].status, pages[i].meaning);
        return;
    }
    bp_problem(reply, 404, "not_found", "there is no error of that code");
}
