// Finds clients that are slower than `minRate`. Only time in which we wait for the client counts, as in Kestrel
// (MinRequestBodyDataRate, MinResponseDataRate): not the time in which the handler works, or in which it waits for something else.
//
// A client has a credit of bytes. What it sends adds to the credit, and each second in which we wait for it takes `minRate` off.

import { Watch, type Watching } from '../transport/watch.ts'

/** Milliseconds between two looks. Each look that finds us waiting takes one step's worth off the credit, also if it comes late. */
const STEP = 1000

/** The credit at the beginning, in seconds of `minRate`: the grace period. What a client sends does not raise its credit above this. */
export const RATE_GRACE = 5

/** A client, as its speed is measured. */
export interface Paced {
  /** Bytes of the request body. */
  readonly bytesReceived: number
  /** Bytes that the kernel has accepted. */
  readonly bytesTaken: number
  /** Whether the handler waits for more of the request body. */
  readonly waitsForContent: boolean
  /** Whether bytes of the response wait for the client. */
  readonly waitsForTaker: boolean
  /** Called when the client is too slow. */
  onTooSlow (what: 'sent' | 'taken'): void
}

export interface Account {
  bytesReceived: number
  bytesTaken: number
  requestCredit: number
  responseCredit: number
}

export type PaceWatching = Watching<Paced, Account>

/** @returns null if there is no `minRate` */
export function rateWatchOf ({ minRate }: { minRate: number }): RateWatch | null {
  return minRate === 0 ? null : new RateWatch(minRate)
}

export class RateWatch extends Watch<Paced, Account> {
  private readonly minRate: number

  /** @param minRate bytes per second */
  constructor (minRate: number) {
    super(STEP)
    this.minRate = minRate
  }

  protected look (client: Paced, account: Account | null): Account {
    const { minRate } = this
    const { bytesReceived, bytesTaken } = client
    const grace = RATE_GRACE * minRate
    const cost = minRate * STEP / 1000
    account ??= { bytesReceived: 0, bytesTaken, requestCredit: grace, responseCredit: grace }
    account.requestCredit = Math.min(grace, account.requestCredit + bytesReceived - account.bytesReceived)
    // Without an upper limit: the kernel takes megabytes at once, and then nothing until the client has taken much of them.
    account.responseCredit += bytesTaken - account.bytesTaken
    Object.assign(account, { bytesReceived, bytesTaken })
    if (client.waitsForContent && (account.requestCredit -= cost) < 0) client.onTooSlow('sent')
    if (client.waitsForTaker && (account.responseCredit -= cost) < 0) client.onTooSlow('taken')
    return account
  }
}
