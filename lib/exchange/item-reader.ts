// The items of a request body. One read of the stream gives many items: only the read is waited for, not each item.

import type { Readable } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import { ItemError, ItemLimitError } from '../errors.ts'
import { type ItemDecoder, NO_ITEM } from '../items/codec.ts'
import { hideStacks, restoreStacks } from '../node/stacks.ts'
import type { Receiving } from './items.ts'

/** The stream of an exchange, as the reader of its items sees it. */
export interface ItemSource extends Readable {
  /** Whether the request body was read to its end. Otherwise an end is that of `stopReading()`, and may be within an item. */
  readonly bodyIsComplete: boolean
}

type Result = IteratorResult<unknown, undefined>

const DONE: Result = { value: undefined, done: true }

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
  private decoded = 0 // since other code could run
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

  next (): Promise<Result> {
    if (this.reading === null && this.decoded < MAX_RUN) {
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
    const first = await this.readItem()
    return first.done === true ? first : { value: await this.batchFrom(first.value), done: false }
  }

  private async batchFrom (first: unknown): Promise<unknown[]> {
    const batch = [first]
    try {
      for (let item; batch.length < MAX_RUN && (item = this.nextItem()) !== NO_ITEM;) batch.push(isPromise(item) ? await item : item)
    } catch (error) {
      // The items before it come first.
      this.failure = error
      this.hasFailure = true
    }
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
    if (!this.hasFailure) return NO_ITEM
    this.hasFailure = false
    throw this.failure
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
      // The items before it come first.
      this.failure = error
      this.hasFailure = true
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
    const { decoder, stream } = this
    if (this.decoded >= MAX_RUN) {
      this.decoded = 0
      await immediate()
    }
    for (;;) {
      const item = this.nextItem()
      if (item !== NO_ITEM) return resultOf(item)
      const { value: chunk, done } = await this.readChunk()
      if (done !== true) {
        decoder.write(typeof chunk === 'string' ? Buffer.from(chunk, stream.readableEncoding!) : chunk)
        continue
      }
      if (!stream.bodyIsComplete || this.isEnded) return DONE
      this.isEnded = true
      decoder.end()
    }
  }

  private async readChunk (): Promise<IteratorResult<Buffer | string>> {
    this.chunks ??= this.stream.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer | string>
    try {
      return await this.chunks.next()
    } catch (error) {
      // An iterator that has failed is at its end. A second loop must not take that for the end of the body.
      this.chunks = null
      throw error
    }
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
