// What decoders and those who use them share. A codec is pure: bytes in, items out; items in, bytes out.

import type { ItemCodec } from '../../types/items.d.ts'
import { ItemSerializeError } from '../errors.ts'

export type { DecoderOptions, ItemCodec, ItemDecoder } from '../../types/items.d.ts'

/** What `next` returns if bytes are missing, or behind the last item. */
export const NO_ITEM: unique symbol = Symbol('no item')

/**
 * @param toJson makes the JSON text of an item, for codecs of JSON
 * @param index the number of the item, from 0
 * @returns bytes as they are sent, or a text for `frameTexts`
 * @throws {ItemSerializeError} FST_ERR_DUPLEX_ITEM_SERIALIZE
 */
export function encodeItem ({ frame, encode }: ItemCodec, toJson: (item: unknown) => string, item: unknown, index: number): string | Uint8Array {
  try {
    const content = frame === undefined ? encode!(item) : toJson(item)
    if (typeof content !== 'string' && !ArrayBuffer.isView(content)) throw new TypeError('its codec has made neither bytes nor a text of it')
    return content
  } catch (error) {
    throw new ItemSerializeError(index, (error as Error).message, { cause: error })
  }
}

/** @returns items as they are sent, from their texts: at least one */
export function frameTexts ({ frame }: ItemCodec, texts: readonly string[]): string {
  return frame === undefined ? texts.join('') : frame(texts)
}
