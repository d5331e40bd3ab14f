import datetime

from deepseek_rpc.v2 import auth_pb2 as _auth_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UploadDatasetRequest(_message.Message):
    __slots__ = ("spec", "data")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    spec: DatasetSpec
    data: bytes
    def __init__(self, spec: _Optional[_Union[DatasetSpec, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class DatasetSpec(_message.Message):
    __slots__ = ("request_id", "display_name", "format", "size_bytes", "sha256")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[DatasetSpec.Format]
        FORMAT_CSV: _ClassVar[DatasetSpec.Format]
        FORMAT_JSONL: _ClassVar[DatasetSpec.Format]
        FORMAT_PARQUET: _ClassVar[DatasetSpec.Format]
        FORMAT_ARROW: _ClassVar[DatasetSpec.Format]
    FORMAT_UNSPECIFIED: DatasetSpec.Format
    FORMAT_CSV: DatasetSpec.Format
    FORMAT_JSONL: DatasetSpec.Format
    FORMAT_PARQUET: DatasetSpec.Format
    FORMAT_ARROW: DatasetSpec.Format
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    display_name: str
    format: DatasetSpec.Format
    size_bytes: int
    sha256: str
    def __init__(self, request_id: _Optional[str] = ..., display_name: _Optional[str] = ..., format: _Optional[_Union[DatasetSpec.Format, str]] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class UploadDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("id", "display_name", "format", "size_bytes", "rows", "columns", "row_errors", "row_error_count", "create_time", "sha256")
    ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROW_ERRORS_FIELD_NUMBER: _ClassVar[int]
    ROW_ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    id: str
    display_name: str
    format: DatasetSpec.Format
    size_bytes: int
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    row_errors: _containers.RepeatedCompositeFieldContainer[RowError]
    row_error_count: int
    create_time: _timestamp_pb2.Timestamp
    sha256: str
    def __init__(self, id: _Optional[str] = ..., display_name: _Optional[str] = ..., format: _Optional[_Union[DatasetSpec.Format, str]] = ..., size_bytes: _Optional[int] = ..., rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., row_errors: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., row_error_count: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sha256: _Optional[str] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "type", "missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    missing: int
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., missing: _Optional[int] = ...) -> None: ...

class RowError(_message.Message):
    __slots__ = ("line", "column", "message")
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    line: int
    column: str
    message: str
    def __init__(self, line: _Optional[int] = ..., column: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class AnalyzeRequest(_message.Message):
    __slots__ = ("request_id", "dataset_id", "columns", "time_column", "group_by", "granularity", "trend", "forecast", "anomaly", "correlation", "profile")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TIME_COLUMN_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GRANULARITY_FIELD_NUMBER: _ClassVar[int]
    TREND_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    ANOMALY_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    dataset_id: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    time_column: str
    group_by: _containers.RepeatedScalarFieldContainer[str]
    granularity: str
    trend: TrendAnalysis
    forecast: ForecastAnalysis
    anomaly: AnomalyAnalysis
    correlation: CorrelationAnalysis
    profile: ProfileAnalysis
    def __init__(self, request_id: _Optional[str] = ..., dataset_id: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., time_column: _Optional[str] = ..., group_by: _Optional[_Iterable[str]] = ..., granularity: _Optional[str] = ..., trend: _Optional[_Union[TrendAnalysis, _Mapping]] = ..., forecast: _Optional[_Union[ForecastAnalysis, _Mapping]] = ..., anomaly: _Optional[_Union[AnomalyAnalysis, _Mapping]] = ..., correlation: _Optional[_Union[CorrelationAnalysis, _Mapping]] = ..., profile: _Optional[_Union[ProfileAnalysis, _Mapping]] = ...) -> None: ...

class TrendAnalysis(_message.Message):
    __slots__ = ("period", "confidence")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    period: int
    confidence: float
    def __init__(self, period: _Optional[int] = ..., confidence: _Optional[float] = ...) -> None: ...

class ForecastAnalysis(_message.Message):
    __slots__ = ("horizon", "method", "levels", "period")
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    horizon: int
    method: str
    levels: _containers.RepeatedScalarFieldContainer[float]
    period: int
    def __init__(self, horizon: _Optional[int] = ..., method: _Optional[str] = ..., levels: _Optional[_Iterable[float]] = ..., period: _Optional[int] = ...) -> None: ...

class AnomalyAnalysis(_message.Message):
    __slots__ = ("threshold", "scope", "period")
    class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SCOPE_UNSPECIFIED: _ClassVar[AnomalyAnalysis.Scope]
        SCOPE_SERIES: _ClassVar[AnomalyAnalysis.Scope]
        SCOPE_POINT: _ClassVar[AnomalyAnalysis.Scope]
        SCOPE_FDR: _ClassVar[AnomalyAnalysis.Scope]
    SCOPE_UNSPECIFIED: AnomalyAnalysis.Scope
    SCOPE_SERIES: AnomalyAnalysis.Scope
    SCOPE_POINT: AnomalyAnalysis.Scope
    SCOPE_FDR: AnomalyAnalysis.Scope
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    scope: AnomalyAnalysis.Scope
    period: int
    def __init__(self, threshold: _Optional[float] = ..., scope: _Optional[_Union[AnomalyAnalysis.Scope, str]] = ..., period: _Optional[int] = ...) -> None: ...

class CorrelationAnalysis(_message.Message):
    __slots__ = ("method",)
    METHOD_FIELD_NUMBER: _ClassVar[int]
    method: str
    def __init__(self, method: _Optional[str] = ...) -> None: ...

class ProfileAnalysis(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("summary_json", "tables", "warnings")
    class TablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SUMMARY_JSON_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    summary_json: str
    tables: _containers.ScalarMap[str, bytes]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, summary_json: _Optional[str] = ..., tables: _Optional[_Mapping[str, bytes]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamAnalyzeResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: AnalyzeProgress
    result: AnalyzeResponse
    def __init__(self, progress: _Optional[_Union[AnalyzeProgress, _Mapping]] = ..., result: _Optional[_Union[AnalyzeResponse, _Mapping]] = ...) -> None: ...

class AnalyzeProgress(_message.Message):
    __slots__ = ("fraction", "stage")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    stage: str
    def __init__(self, fraction: _Optional[float] = ..., stage: _Optional[str] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("dataset_id",)
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    def __init__(self, dataset_id: _Optional[str] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets", "next_page_token")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    next_page_token: str
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("dataset_id",)
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    def __init__(self, dataset_id: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
