// Feeds decoders with all kinds of segmentations, and notes what comes out.

import assert from 'node:assert/strict'
import { NO_ITEM } from '../../lib/items/codec.ts'
import type { ItemDecoder } from '../../types/items.d.ts'

export const BAD = 'FST_ERR_DUPLEX_ITEM'
export const LONG = 'FST_ERR_DUPLEX_ITEM_LIMIT'

/** The offset of an item, and its value or the code of its error. */
export type Outcome = [offset: number, result: unknown]

interface AnyItemError extends Error { code: string, statusCode: number, index: number, offset: number, cause?: unknown }

export interface Feeding {
  outcomes: Outcome[]
  errors: AnyItemError[]
  /** The most bytes that the decoder has held when it asked for more. */
  held: number
}

/**
 * @param isSticky whether the decoder throws its first error again and again
 */
export function feed (decoder: ItemDecoder & { readonly heldBytes: number }, chunks: Iterable<Buffer>, isSticky = false): Feeding {
  const feeding: Feeding = { outcomes: [], errors: [], held: 0 }
  const take = (): void => {
    while (true) {
      const index = feeding.outcomes.length
      try {
        const item = decoder.next()
        if (item === NO_ITEM) return
        feeding.outcomes.push([decoder.offset, item])
      } catch (error) {
        assert(isItemError(error), error as Error)
        if (isSticky && error === feeding.errors[0]) return
        assert.equal(error.index, index)
        assert.equal(error.offset, decoder.offset)
        feeding.outcomes.push([error.offset, error.code])
        feeding.errors.push(error)
      }
      assert.equal(decoder.index, index)
      assert.equal(decoder.offset, feeding.outcomes[index][0], 'the offset stays')
    }
  }
  assert.equal(decoder.index, -1)
  for (const chunk of chunks) {
    const last: number[] = [decoder.index, decoder.offset]
    decoder.write(chunk)
    assert.deepEqual([decoder.index, decoder.offset], last)
    take()
    feeding.held = Math.max(feeding.held, decoder.heldBytes)
    chunk.fill('?') // nothing may be left that is a view of it
  }
  decoder.end()
  take()
  if (!isSticky) assert.equal(decoder.next(), NO_ITEM)
  return feeding
}

function isItemError (error: unknown): error is AnyItemError {
  const { code, statusCode, index, offset } = error as Partial<AnyItemError>
  return ((code === BAD && statusCode === 400) || (code === LONG && statusCode === 413)) && Number.isInteger(index) && Number.isInteger(offset)
}

/** Bytes of ISO-8859-1 characters: `\xff` is the byte 0xff. Other text is given in UTF-8 by `utf8`. */
export const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')
export const utf8 = (text: string): Buffer => Buffer.from(text, 'utf8')

export function cut (body: Buffer, ...sizes: number[]): Buffer[] {
  const chunks: Buffer[] = []
  for (let at = 0, i = 0; at < body.length; i++) {
    const size = sizes[i % sizes.length]
    chunks.push(Buffer.from(body.subarray(at, at + size)))
    at += size
  }
  return chunks
}

/** Whole, byte by byte, and every split in two. */
export function segmentations (body: Buffer): Buffer[][] {
  const splits = Array.from({ length: Math.max(0, body.length - 1) }, (_, i) => cut(body, i + 1, body.length))
  return [[Buffer.from(body)], cut(body, 1), ...splits]
}
