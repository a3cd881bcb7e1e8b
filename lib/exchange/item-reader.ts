// The items of a request body. One read of the stream gives many items: only the read is waited for, not each item.

import type { Readable } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import { ItemError, ItemLimitError } from '../errors.ts'
import { type ItemDecoder, NO_ITEM } from '../items/codec.ts'
import { hideStacks, restoreStacks } from '../node/stacks.ts'
import { bytesFrom } from '../node/streams.ts'
import type { Receiving } from './items.ts'

/** The stream of an exchange, as the reader of its items sees it. */
export interface ItemSource extends Readable {
  /** An iterator that does not destroy the stream when it is left. */
  iterateChunks (): AsyncIterator<Buffer | string>
  /** Whether the request body was read to its end. Otherwise an end is that of `stopReading()`, and may be within an item. */
  readonly bodyIsComplete: boolean
}

type Result = IteratorResult<unknown, undefined>

const DONE: IteratorReturnResult<undefined> = { value: undefined, done: true }

/** How many items are decoded ahead of the one that is asked for. In a row they take less time than each between two turns of a loop. */
const AHEAD = 64

/** How many items are decoded before other code may run, and how many there are in a batch at most. */
const MAX_RUN = 1024

export class ItemReader implements AsyncIterableIterator<unknown> {
  private readonly stream: ItemSource
  private readonly receiving: Receiving
  private readonly decoder: ItemDecoder
  private chunks: AsyncIterator<Buffer | string> | null = null
  private reading: Promise<unknown> | null = null // the last call of `next` that waits for a read
  private isEnded = false // the decoder has the whole body
  private ahead: unknown[] = [] // items, of which the first `taken` were handed out
  private taken = 0
  private decoded = 0
  private decodedBefore = 0 // when other code could run
  private failure: unknown // of the item behind them
  private hasFailure = false
  private invalidError: unknown = null // of the last item that could not be decoded, or was invalid

  constructor (stream: ItemSource, receiving: Receiving) {
    this.stream = stream
    this.receiving = receiving
    this.decoder = receiving.makeDecoder()
  }

  [Symbol.asyncIterator] (): this {
    return this
  }

  /** A number that grows with each item that was handed out. */
  get itemsTaken (): number {
    return this.decoded - (this.ahead.length - this.taken)
  }

  /** Whether items were decoded that were not handed out yet. */
  get hasUnread (): boolean {
    return this.taken < this.ahead.length || this.hasFailure
  }

  next (): Promise<Result> {
    if (this.reading === null && !this.hasRunLong) {
      try {
        const item = this.nextItem()
        if (item !== NO_ITEM) return resultOf(item)
      } catch (error) {
        return Promise.reject(error)
      }
    }
    return this.inTurn(this.readItem)
  }

  /** Calls that do not wait for each other get their items in turn. */
  private inTurn<T> (read: () => Promise<T>): Promise<T> {
    const { reading } = this
    const turn = reading === null ? read() : reading.then(read, read)
    const leave = (): void => { if (this.reading === turn) this.reading = null }
    turn.then(leave, leave)
    this.reading = turn
    return turn
  }

  /** Leaves the loop. The items that it has not taken are left for the next one. */
  async return (): Promise<Result> {
    const { chunks } = this
    this.chunks = null
    await chunks?.return?.()
    return DONE
  }

  /** The items of each read as arrays, which are never empty. */
  batches (): AsyncIterableIterator<unknown[]> {
    const batches: AsyncIterableIterator<unknown[]> = {
      [Symbol.asyncIterator]: () => batches,
      next: () => this.inTurn(this.readBatch),
      return: () => this.return() as Promise<any>
    }
    return batches
  }

  private readonly readBatch = async (): Promise<IteratorResult<unknown[], undefined>> => {
    if (this.hasRunLong) await this.letOthersRun()
    for (;;) {
      const batch = await this.decodeBatch()
      if (batch.length > 0) return { value: batch, done: false }
      this.throwFailure()
      if (!await this.readMore()) return DONE
    }
  }

  /** @returns the items that were read, up to the first that fails */
  private async decodeBatch (): Promise<unknown[]> {
    const batch = this.ahead.slice(this.taken)
    this.taken = this.ahead.length
    try {
      if (batch.length > 0) batch.push(await batch.pop()) // only the last one may be a promise
      for (let item; batch.length < MAX_RUN && !this.hasFailure && (item = this.decodeItem()) !== NO_ITEM;) {
        batch.push(isPromise(item) ? await item : item)
      }
    } catch (error) {
      this.failAfterItems(error)
    }
    this.decoded += batch.length
    return batch
  }

  /** @returns the next item that was read; NO_ITEM if more must be read */
  private nextItem (): unknown {
    if (this.taken === this.ahead.length && !this.hasFailure) this.decodeAhead()
    const { ahead, taken } = this
    if (taken < ahead.length) {
      const item = ahead[taken]
      ahead[taken] = undefined
      this.taken++
      return item
    }
    this.throwFailure()
    return NO_ITEM
  }

  private throwFailure (): void {
    if (!this.hasFailure) return
    this.hasFailure = false
    throw this.failure
  }

  /** The items before the one that failed come first. */
  private failAfterItems (error: unknown): void {
    this.failure = error
    this.hasFailure = true
  }

  private decodeAhead (): void {
    const ahead: unknown[] = []
    this.ahead = ahead
    this.taken = 0
    try {
      while (ahead.length < AHEAD) {
        const item = this.decodeItem()
        if (item === NO_ITEM) return
        this.decoded++
        ahead.push(item)
        if (!isPromise(item)) continue
        item.catch(ignore) // whoever asks for the item will know
        return
      }
    } catch (error) {
      this.failAfterItems(error)
    }
  }

  private decodeItem (): unknown {
    const { decoder, receiving } = this
    if (receiving.keepsInvalid) return this.decodeOrInvalid()
    const item = decoder.next()
    return item === NO_ITEM ? NO_ITEM : receiving.validate(item, decoder)
  }

  private decodeOrInvalid (): unknown {
    const { decoder, receiving } = this
    try {
      const item = this.decodeWithoutStack()
      if (item === NO_ITEM) return NO_ITEM
      const value = receiving.validate(item, decoder)
      return isPromise(value) ? value.then(valid, invalid) : valid(value)
    } catch (error) {
      // A codec of the user's own cannot go on behind a bad item: it throws the same error for ever.
      if (error === this.invalidError) throw error
      this.invalidError = error
      return invalid(error)
    }
  }

  private decodeWithoutStack (): unknown {
    const limit = hideStacks()
    try {
      return this.decoder.next()
    } finally {
      restoreStacks(limit)
    }
  }

  private readonly readItem = async (): Promise<Result> => {
    if (this.hasRunLong) await this.letOthersRun()
    let item: unknown
    while ((item = this.nextItem()) === NO_ITEM) {
      if (!await this.readMore()) return DONE
    }
    // Not with `resultOf`: returning a promise from an async function costs three turns more.
    return { value: isPromise(item) ? await item : item, done: false }
  }

  /** Whether other code must run before the next item. */
  private get hasRunLong (): boolean {
    return this.decoded - this.decodedBefore >= MAX_RUN
  }

  private async letOthersRun (): Promise<void> {
    this.decodedBefore = this.decoded
    await immediate()
  }

  /** @returns whether there may be more items */
  private async readMore (): Promise<boolean> {
    const { decoder, stream } = this
    let chunk: Buffer | string | undefined
    try {
      this.chunks ??= stream.iterateChunks()
      chunk = (await this.chunks.next()).value
    } catch (error) {
      // An iterator that has failed is at its end. A second loop must not take that for the end of the body.
      this.chunks = null
      throw error
    }
    if (chunk !== undefined) {
      decoder.write(bytesFrom(chunk, stream))
      return true
    }
    if (!stream.bodyIsComplete || this.isEnded) return false
    this.isEnded = true
    decoder.end()
    return true
  }
}

function resultOf (item: unknown): Promise<Result> {
  // Not with `await`, which costs each item one turn more.
  return isPromise(item) ? item.then((value) => ({ value, done: false })) : Promise.resolve({ value: item, done: false })
}

function isPromise (value: unknown): value is Promise<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}

function valid (value: unknown): object {
  return { ok: true, value }
}

/** @throws the error, if it is none of an item: a mistake of the app */
function invalid (error: unknown): object {
  if (!(error instanceof ItemError || error instanceof ItemLimitError)) throw error
  return { ok: false, error }
}

function ignore (): void {}
