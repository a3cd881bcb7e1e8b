// What decoders and those who use them share. A codec is pure: bytes in, items out; items in, bytes out.

export type { DecoderOptions, ItemCodec, ItemDecoder } from '../../types/items.d.ts'

/** What `next` returns if bytes are missing, or behind the last item. */
export const NO_ITEM: unique symbol = Symbol('no item')
