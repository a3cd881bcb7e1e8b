// Formats of the user's own: bytes of any kind, of which a function of the user's knows where an item ends.

import assert from 'node:assert'
import type { CustomCodec, CustomSendCodec, DecoderOptions, ItemCodec, ItemDecoder, ItemFormat, ItemFormatter } from '../../types/items.d.ts'
import { ItemError, ItemLimitError, OptionError } from '../errors.ts'
import { ByteBuffer, NO_BYTES } from './byte-buffer.ts'
import { NO_ITEM } from './codec.ts'
import { makeFormat } from './formats.ts'

type Decode = CustomCodec['decode']

export class CustomDecoder implements ItemDecoder {
  index = -1
  offset = 0
  private readonly decode: Decode
  private readonly maxItemSize: number
  /** What has not been read: in `chunk`, or, if an item spans chunks, in `partial`. */
  private chunk = NO_BYTES
  private readonly partial: ByteBuffer
  /** How many bytes must be there before it is worth to try again. */
  private needed = 0
  /** Bytes of all items so far. */
  private consumed = 0
  private isEnded = false
  /** After an error, nobody knows where the next item begins. */
  private error: Error | null = null

  constructor (decode: Decode, { maxItemSize }: DecoderOptions) {
    this.decode = decode
    this.maxItemSize = maxItemSize
    this.partial = new ByteBuffer(maxItemSize)
  }

  /** Bytes of memory that are held. */
  get heldBytes (): number {
    return this.chunk.length + this.partial.capacity
  }

  write (chunk: Buffer): void {
    assert(this.chunk.length === 0 && !this.isEnded)
    if (this.error !== null) return
    if (this.partial.length > 0) this.partial.append(chunk)
    else this.chunk = chunk
  }

  end (): void {
    this.isEnded = true
  }

  next (): unknown {
    if (this.error !== null) throw this.error
    const bytes = this.partial.length > 0 ? this.partial.view() : this.chunk
    if (bytes.length === 0 || (bytes.length < this.needed && !this.isEnded)) return NO_ITEM
    const result = this.tryDecode(bytes)
    if (typeof result === 'number' || result === null) return this.wait(bytes.length, result)
    const { item, size } = result
    assert(Number.isInteger(size) && size > 0 && size <= bytes.length, `decode() was given ${bytes.length} bytes, and took ${size}`)
    if (size > this.maxItemSize) this.failLimit()
    this.index++
    this.offset = this.consumed
    this.consumed += size
    this.needed = 0
    // The memory is given away, not used again: the item may hold views of it.
    this.chunk = (this.partial.length > 0 ? this.partial.take() : this.chunk).subarray(size)
    return item
  }

  private tryDecode (bytes: Buffer): ReturnType<Decode> {
    try {
      return this.decode(bytes, this.isEnded)
    } catch (error) {
      return this.fail(new ItemError(this.index + 1, this.consumed, error instanceof Error ? error.message : 'it cannot be decoded', { cause: error }))
    }
  }

  /** @param needed bytes, at least; null: unknown */
  private wait (length: number, needed: number | null): typeof NO_ITEM {
    assert(needed === null || Number.isInteger(needed), `decode() needs ${needed} bytes`)
    if (this.isEnded) this.fail(new ItemError(this.index + 1, this.consumed, 'the body ends within it'))
    this.needed = Math.max(length + 1, needed ?? 0)
    // Where it is unknown how many are missing, these may be all.
    if (Math.max(length, needed ?? 0) > this.maxItemSize) this.failLimit()
    if (this.partial.length === 0) this.partial.append(this.chunk)
    this.chunk = NO_BYTES
    return NO_ITEM
  }

  private failLimit (): never {
    this.fail(new ItemLimitError(this.index + 1, this.consumed, this.maxItemSize))
  }

  private fail (error: Error): never {
    this.index++
    this.offset = this.consumed
    this.chunk = NO_BYTES
    this.partial.take()
    this.error = error
    throw error
  }
}

/** Type and subtype in lower case, without parameters: as they are compared. */
const MEDIA_TYPE = /^[a-z0-9!#$%&'*+\-.^_`|~]+\/[a-z0-9!#$%&'*+\-.^_`|~]+$/
const NAMES = ['mediaTypes', 'decode', 'encode', 'heartbeat']

/**
 * A function that makes formats of this codec, as `jsonl` does.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION
 */
export function itemCodec (custom: CustomCodec | CustomSendCodec): ItemFormatter {
  for (const name of Object.keys(custom)) {
    if (!NAMES.includes(name)) throw new OptionError(name, 'there is no such member of a codec')
  }
  const { mediaTypes, decode, encode, heartbeat } = custom as Partial<CustomCodec>
  if (!Array.isArray(mediaTypes) || mediaTypes.length === 0 || !mediaTypes.every((type) => typeof type === 'string' && MEDIA_TYPE.test(type))) {
    throw new OptionError('mediaTypes', 'expected an array of media types in lower case, without parameters')
  }
  for (const [name, value] of Object.entries({ decode, encode })) {
    if (value !== undefined && typeof value !== 'function') throw new OptionError(name, 'expected a function')
  }
  if (decode === undefined && encode === undefined) throw new OptionError('decode', 'expected "decode", "encode" or both')
  if (heartbeat !== undefined && typeof heartbeat !== 'string' && !(heartbeat instanceof Uint8Array)) throw new OptionError('heartbeat', 'expected a string or bytes')
  const codec = Object.freeze<ItemCodec>({
    mediaTypes: [...mediaTypes] as [string, ...string[]],
    ...(decode && { decoder: (options) => new CustomDecoder(decode, options) }),
    ...(encode && { encode }),
    ...(heartbeat !== undefined && { heartbeat })
  })
  return (schema, options) => makeFormat(codec, schema, options) as ItemFormat<any, any>
}
