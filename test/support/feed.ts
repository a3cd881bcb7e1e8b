// Feeds the pure readers with all kinds of segmentations.

import assert from 'node:assert/strict'
import type { BodyReader } from '../../lib/transfer/body-reader.ts'

export const whole = (bytes: string): Buffer[] => [Buffer.from(bytes, 'latin1')]
export const byteByByte = (bytes: string): Buffer[] => Array.from(Buffer.from(bytes, 'latin1'), (byte) => Buffer.of(byte))
export const splitAt = (bytes: string, at: number): Buffer[] => [Buffer.from(bytes.slice(0, at), 'latin1'), Buffer.from(bytes.slice(at), 'latin1')]

/** Whole, byte by byte, and every split in two from `first` to `last`. */
export function segmentations (bytes: string, first = 1, last = bytes.length - 1): Buffer[][] {
  const splits = Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => splitAt(bytes, first + i))
  return [whole(bytes), byteByByte(bytes), ...splits]
}

export interface Read { content: string, trailers: Record<string, string>, code: string | null, done: boolean, rest: string }

/** Feeds the chunks to a reader, then the end of the connection if `end`. */
export function feed (reader: BodyReader, chunks: Buffer[], end = false): Read {
  let content = ''
  let rest = ''
  for (const chunk of chunks) {
    if (reader.done || reader.error !== null) {
      rest += chunk.toString('latin1')
      continue
    }
    const { length } = chunk
    const got = reader.read(chunk)
    assert(reader.consumed <= length)
    content += got.toString('latin1')
    rest += chunk.toString('latin1', reader.consumed)
  }
  if (end) reader.end()
  const code = (reader.error as { code?: string } | null)?.code ?? null
  return { content, trailers: { ...reader.trailers }, code, done: reader.done, rest }
}
