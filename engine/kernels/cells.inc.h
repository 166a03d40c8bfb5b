/* cells.inc.h: one step of an lstm or gru cell, forward and backward, written once on v16; included by each
 * kernels_*.c. The formulas are PyTorch's; W x + b of the input is in the slot, W h + b of the state in `hidden`.
 *
 *   lstm   i, f, o = sigmoid, g = tanh of the sums;  c' = f c + i g;  h' = o tanh(c')
 *   gru    r, z = sigmoid of the sums;  n = tanh(x_n + r q) with q = W_n h + b_n;  h' = (1 - z) n + z h
 *
 * The backward step overwrites the gates by the error signals of their sums.
 */

/* Where row r stands in what is laid out as the slots are, and the new state of a unit group. */
#define CELL_AT(base, r) ((base) + (size_t)(r)*c->row)

V16_INLINE void cell_put(const struct bp_cell *c, int r, size_t j, int count, v16 h)
{
    if (c->next)
        v16_store_n(CELL_AT(c->next, r) + j, h, count);
    if (c->y)
        v16_store_n(c->y + (size_t)r * c->y_row + j, h, count);
}

/* The error signal of the new state: from the steps after it, and from the output. */
V16_INLINE v16 cell_signal(const struct bp_cell *c, int r, size_t j, int count)
{
    v16 d = v16_load_n(c->dh + (size_t)r * (size_t)c->units + j, count);
    return c->dy ? v16_add(d, v16_load_n(c->dy + (size_t)r * c->y_row + j, count)) : d;
}

/* d s (1 - s), and d (1 - t^2). */
V16_INLINE v16 cell_through_sigmoid(v16 d, v16 s)
{
    return v16_mul(d, v16_mul(s, v16_sub(v16_set(1), s)));
}

V16_INLINE v16 cell_through_tanh(v16 d, v16 t)
{
    return v16_mul(d, v16_fma(v16_neg(t), t, v16_set(1)));
}

static void kernel_lstm(const struct bp_cell *c)
{
    size_t n = (size_t)c->units;
    for (int r = 0; r < c->rows; r++) {
        bp_real *slot = CELL_AT(c->slot, r);
        const bp_real *hidden = c->hidden + (size_t)r * 4 * n, *before = c->before ? CELL_AT(c->before, r) : NULL;
        for (size_t j = 0; j < n; j += LANES) {
            int count = v16_count(j, n);
            v16 gate[4];
            for (size_t k = 0; k < 4; k++) {
                v16 sum = v16_add(v16_load_n(slot + k * n + j, count), v16_load_n(hidden + k * n + j, count));
                gate[k] = k == 2 ? v16_tanh(sum) : v16_sigmoid(sum);
                v16_store_n(slot + k * n + j, gate[k], count);
            }
            v16 cell = v16_mul(gate[0], gate[2]);
            if (before)
                cell = v16_fma(gate[1], v16_load_n(before + 4 * n + j, count), cell);
            v16_store_n(slot + 4 * n + j, cell, count);
            cell_put(c, r, j, count, v16_mul(gate[3], v16_tanh(cell)));
        }
    }
}

static void kernel_lstm_gradient(const struct bp_cell *c)
{
    size_t n = (size_t)c->units;
    for (int r = 0; r < c->rows; r++) {
        bp_real *slot = CELL_AT(c->slot, r), *carried = c->dc + (size_t)r * n;
        const bp_real *before = c->before ? CELL_AT(c->before, r) : NULL;
        for (size_t j = 0; j < n; j += LANES) {
            int count = v16_count(j, n);
            v16 i = v16_load_n(slot + j, count), f = v16_load_n(slot + n + j, count);
            v16 g = v16_load_n(slot + 2 * n + j, count), o = v16_load_n(slot + 3 * n + j, count);
            v16 squashed = v16_tanh(v16_load_n(slot + 4 * n + j, count)), d = cell_signal(c, r, j, count);
            v16 past = before ? v16_load_n(before + 4 * n + j, count) : v16_zero();
            v16 dc = v16_add(v16_load_n(carried + j, count), cell_through_tanh(v16_mul(d, o), squashed));
            v16_store_n(slot + j, cell_through_sigmoid(v16_mul(dc, g), i), count);
            v16_store_n(slot + n + j, cell_through_sigmoid(v16_mul(dc, past), f), count);
            v16_store_n(slot + 2 * n + j, cell_through_tanh(v16_mul(dc, i), g), count);
            v16_store_n(slot + 3 * n + j, cell_through_sigmoid(v16_mul(d, squashed), o), count);
            v16_store_n(carried + j, v16_mul(dc, f), count);
        }
    }
}

static void kernel_gru(const struct bp_cell *c)
{
    size_t n = (size_t)c->units;
    for (int row = 0; row < c->rows; row++) {
        bp_real *slot = CELL_AT(c->slot, row);
        const bp_real *hidden = c->hidden + (size_t)row * 3 * n;
        for (size_t j = 0; j < n; j += LANES) {
            int count = v16_count(j, n);
            v16 q = v16_load_n(hidden + 2 * n + j, count), h = v16_load_n(slot + 4 * n + j, count);
            v16 r = v16_sigmoid(v16_add(v16_load_n(slot + j, count), v16_load_n(hidden + j, count)));
            v16 z = v16_sigmoid(v16_add(v16_load_n(slot + n + j, count), v16_load_n(hidden + n + j, count)));
            v16 fresh = v16_tanh(v16_fma(r, q, v16_load_n(slot + 2 * n + j, count)));
            v16_store_n(slot + j, r, count);
            v16_store_n(slot + n + j, z, count);
            v16_store_n(slot + 2 * n + j, fresh, count);
            v16_store_n(slot + 3 * n + j, q, count);
            cell_put(c, row, j, count, v16_fma(z, h, v16_mul(v16_sub(v16_set(1), z), fresh)));
        }
    }
}

static void kernel_gru_gradient(const struct bp_cell *c)
{
    size_t n = (size_t)c->units;
    for (int row = 0; row < c->rows; row++) {
        bp_real *slot = CELL_AT(c->slot, row), *hidden = c->hidden + (size_t)row * 3 * n;
        bp_real *carried = c->dh + (size_t)row * n;
        for (size_t j = 0; j < n; j += LANES) {
            int count = v16_count(j, n);
            v16 r = v16_load_n(slot + j, count), z = v16_load_n(slot + n + j, count);
            v16 fresh = v16_load_n(slot + 2 * n + j, count), q = v16_load_n(slot + 3 * n + j, count);
            v16 h = v16_load_n(slot + 4 * n + j, count), d = cell_signal(c, row, j, count);
            v16 dn = cell_through_tanh(v16_mul(d, v16_sub(v16_set(1), z)), fresh), dq = v16_mul(dn, r);
            v16 dr = cell_through_sigmoid(v16_mul(dn, q), r);
            v16 dz = cell_through_sigmoid(v16_mul(d, v16_sub(h, fresh)), z);
            v16_store_n(slot + j, dr, count);
            v16_store_n(slot + n + j, dz, count);
            v16_store_n(slot + 2 * n + j, dn, count);
            v16_store_n(slot + 3 * n + j, dq, count);
            v16_store_n(hidden + j, dr, count);
            v16_store_n(hidden + n + j, dz, count);
            v16_store_n(hidden + 2 * n + j, dq, count);
            v16_store_n(carried + j, v16_mul(d, z), count);
        }
    }
}
#undef CELL_AT
